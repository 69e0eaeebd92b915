/* What the programs of `poise faults` share with Rust (src/probe/faults.rs); a test there holds both
 * to the same layout. */
#pragma once
#include "record.h"

/* What is told of a fault. The first byte is the processor's own error code, on x86. */
#define PROTECTION 0x0001 /* the page was there, and the access not allowed */
#define WRITE 0x0002      /* the access was a write */
#define USER 0x0004       /* it was made in user mode */
#define ALLOCATED 0x0100  /* a page was allocated for it */
#define HUGE 0x0200       /* of the size of a huge page */
#define MAJOR 0x0400      /* it waited for a device */
#define NEAR_SP 0x0800    /* the address is near the stack pointer */
#define NO_CODE 0x1000    /* there was no error code: of the first byte only USER is known */
#define CALL 0x2000       /* no fault, but a system call that made pages */

struct fault {
	u64 end_ns;
	u64 address;
	u32 handler_ns;
	u32 tid_or_pages; /* thread; of a call: the pages that it made */
	u32 tgid;
	u16 flags;
	u16 frames;       /* of its user stack, in the table of stacks at the same place */
};

/* One a CPU: where its faults stand in their table, a ring of which user space moves the tail. */
struct lane {
	u64 head;
	u64 tail;
	u64 lost;       /* faults for which there was no room */
	u64 lost_ns;    /* how long they were handled */
	u64 unbegun;    /* faults that were done and whose beginning was not seen */
	u64 spare[3];
};

/* What a thread's slot holds besides. */
struct fault_slot {
	u32 tid;
	u32 tgid;
	u64 start_ns; /* when the fault began that is being handled; 0 is none */
	u64 address;
	u32 code;     /* the processor's error code */
	u32 seen;     /* what was seen since */
	u64 call_ns;  /* when the call began that makes pages; 0 is none */
	u64 call_address;
	u32 call_pages;
	u32 shown_tgid; /* as user space calls it; 0 is not known yet */
	u64 spare;
};

#define FRAMES 32
