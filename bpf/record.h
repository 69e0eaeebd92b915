/* The memory that our programs share with Rust (src/probe/record.rs); a test there holds both to
 * the same layout. All of it is maps that user space maps. */
#pragma once
#include "kernel.h"

/* What an iteration over all tasks does with those it finds. */
enum {
	FOLLOW_PROCESS = 0, /* follows all threads of the process from now on */
	FOLLOW_AT_EXEC = 1, /* follows the process from its next exec on */
	FOLLOW_THREAD = 2,  /* follows one thread, and what it creates, from now on */
	FORGET = 3,         /* follows no thread of the process any longer */
	PASS_OVER = 4,      /* leaves the process out, where everyone is followed */
};

/* What user space tells the programs, and what they tell of themselves. */
struct control {
	u64 wanted;     /* process or thread, in the namespace of whoever reads the iterator */
	u64 purpose;    /* one of the above */
	u64 waiting;    /* thread (initial namespace) that is followed from its next exec on */
	u64 followed;   /* threads ever followed */
	u64 collisions; /* threads not followed, for their slot was taken */
	u64 lost;       /* calls whose slot another thread took while they were under way */
	u64 untold;     /* slow calls that found no room to be told in */
	u64 first_ns;   /* when the first thread was followed */
};

/* A followed thread stands in the slot of its thread id, modulo their number. One cache line, for
 * threads of neighbouring ids run on different CPUs. */
#define SLOTS 65536

struct slot {
	u32 tid; /* in the initial namespace; 0 is nobody */
	u32 tgid;
	u64 payload[7]; /* each profiler's own; 0 when a thread is new */
};

/* Of the syscalls: a followed thread, and the call that it is in. It is found by where the kernel
 * keeps its user registers, which is on its own kernel stack: these programs are handed that
 * address, while asking who is running would take a helper's call each time. One cache line. */
#define THREADS 65536

struct thread {
	u64 regs;         /* 0 is nobody */
	u64 start_ns;     /* when the call that is under way began; 0 is none */
	u64 row;          /* of which syscall */
	u64 off_ns;       /* how long it was off the CPU */
	u64 off_since_ns; /* since when it is; 0 when it is not */
	u64 passed_over;  /* 1: it is left out */
	u64 spare[2];
};

/* One row a syscall and CPU. The last one takes calls of other numberings (32-bit, x32). */
#define ROWS 512
#define FOREIGN (ROWS - 1)

/* Durations fall into buckets of an eighth of an octave, from 32 ns on; the first and the last
 * take what lies outside. */
#define BUCKETS 256
#define FIRST_OCTAVE 5
#define EIGHTHS 8

struct row {
	u64 calls;      /* where they are only counted; else the buckets tell */
	u64 total_ns;
	u64 longest_ns;
	u64 off_ns;     /* of the total: off the CPU */
	u64 bytes;      /* the sum of what was returned, errors left out */
	u64 unfinished; /* the thread ended in it */
	u64 spare[2];
	u64 buckets[BUCKETS];
};

/* One slow call, as it is told. */
struct slow {
	u64 end_ns; /* when it returned */
	u64 took_ns;
	u64 row;
	u64 tid; /* in the initial namespace */
	u64 result;
	u64 arguments[6];
	char command[16];
};
