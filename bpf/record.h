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
	u64 places;     /* places that were wanted */
	u64 cells;      /* rows of places that were wanted */
	u64 uncounted;  /* times that a counter could not be read */
	u64 level;      /* of the namespace of whoever read the iterator */
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
	u64 place;        /* whom its calls are counted for; 0 is the rest */
	u64 spare;
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
	u64 failed;     /* where a place has it */
	u64 spare;
	u64 buckets[BUCKETS];
};

/* What a profile is broken down by. */
enum {
	BY_NOTHING = 0,
	BY_THREAD = 1,
	BY_PROCESS = 2,
	BY_COMMAND = 3, /* processes by their names */
	BY_FD_TYPE = 4, /* what the descriptor is of that a call is given first */
	BY_THREAD_OF_PROCESS = 5, /* threads; those for which there is no room by their processes */
};

/* A thread, process or name that has rows of its own. They are numbered as they come, and when
 * there are no more, or no rows, a call counts for the rest, which is place 0: its rows are the
 * first ROWS of each CPU's. */
#define PLACES 1024

struct place {
	u64 id; /* of the thread or process, in the initial namespace; 0: nobody has this place */
	char command[16];
	u64 process; /* the place of a thread's process, where that has one, too */
};

/* What descriptors are of; these are places themselves. */
enum {
	FD_OTHER = 0,
	FD_NONE = 1, /* the call is given none */
	FD_BAD = 2,  /* it is not open */
	FD_FILE = 3,
	FD_DIRECTORY = 4,
	FD_LINK = 5,
	FD_PIPE = 6,
	FD_SOCKET = 7,
	FD_CHARACTER = 8,
	FD_BLOCK = 9,
	FD_PROC = 10, /* what the kernel tells of itself: proc, sysfs, cgroups, tracefs, debugfs */
	FD_ANONYMOUS = 11,
	FD_EVENTFD = 12,
	FD_EPOLL = 13,
	FD_TIMERFD = 14,
	FD_SIGNALFD = 15,
	FD_INOTIFY = 16,
	FD_IO_URING = 17,
};

/* Events that are counted in calls, by counters of each CPU. */
#define EVENTS 4

/* The counts of a thread, and of its call that is under way; with struct thread, at the same place. */
struct tally {
	u64 since[EVENTS]; /* what the counters said when it came to this CPU */
	u64 sum[EVENTS];   /* what it counted before it left another */
	u64 ran[EVENTS];   /* what the counters said when the thread came to this CPU, … */
	u64 is_on;         /* … if that was seen */
	u64 spare[3];
};

/* Frames of a slow call's user stack. */
#define SLOW_FRAMES 32

/* One slow call, as it is told. */
struct slow {
	u64 end_ns; /* when it returned */
	u64 took_ns;
	u64 row;
	u64 tid; /* in the initial namespace */
	u64 result;
	u64 arguments[6];
	char command[16];
	u64 pid;    /* the process, in the namespace of whoever read the iterator */
	u64 frames;
	u64 stack[SLOW_FRAMES];
};
