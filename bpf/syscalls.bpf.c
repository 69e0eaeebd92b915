/* How often followed threads call the kernel, how long it takes, and with what result. Each call
 * is timed between the tracepoints at its entry and exit; tables are one a CPU and nothing in
 * them is shared, for the kernel runs these programs without preemption. */
#include "follow.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Set before the programs are loaded, so that what is not wanted is not even compiled. */
const volatile bool off_cpu;     /* time off the CPU is told apart */
const volatile u64 slow_ns;      /* calls that take as long are told one by one; 0: none is */
const volatile bool is_filtered; /* only these syscalls are looked at, a bit each */
const volatile u64 wanted[ROWS / 64];

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ROWS); /* times the CPUs: the loader sets it */
	__type(key, u32);
	__type(value, struct row);
} rows SEC(".maps");

/* Errors by syscall and errno; few calls fail, so one table serves all CPUs. */
#define ERRNOS 544

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ROWS);
	__type(key, u32);
	__type(value, u64[ERRNOS]);
} errors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, THREADS);
	__type(key, u32);
	__type(value, struct thread);
} threads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* the loader sets it */
	__type(value, struct slow);
} slow_calls SEC(".maps");

static __always_inline struct row *row_here(u32 row)
{
	u32 key = bpf_get_smp_processor_id() * ROWS + row;
	return bpf_map_lookup_elem(&rows, &key);
}

/* What 32-bit programs run as. A 64-bit program that calls by int 0x80 is taken by its numbers. */
#define USER32_CS 0x23
#define PSR_MODE32_BIT 0x10

static __always_inline u32 row_of(struct pt_regs *regs, u64 number)
{
	bool is_32_bit = field_exists(regs->cs) ? regs->cs == USER32_CS
						: regs->pstate & PSR_MODE32_BIT;
	return number >= FOREIGN || is_32_bit ? FOREIGN : number;
}

static __always_inline u32 bucket_of(u64 ns)
{
	u32 octave = 0;
	u64 rest = ns >> FIRST_OCTAVE;
	if (!rest)
		return 0;
	if (rest >> 32)
		return BUCKETS - 1;
	if (rest >> 16) { rest >>= 16; octave += 16; }
	if (rest >> 8) { rest >>= 8; octave += 8; }
	if (rest >> 4) { rest >>= 4; octave += 4; }
	if (rest >> 2) { rest >>= 2; octave += 2; }
	octave += rest >> 1;
	/* FIRST_OCTAVE is at least 3: the three bits below the first one are the eighth. */
	return octave * EIGHTHS | (ns >> (octave + FIRST_OCTAVE - 3) & (EIGHTHS - 1));
}

/* The place that a thread has if it is followed. Stacks are aligned to their size, 16 KiB at least. */
static __always_inline struct thread *place_of(struct pt_regs *regs)
{
	u32 key = (u32)(u64)regs >> 14 & (THREADS - 1);
	return bpf_map_lookup_elem(&threads, &key);
}

/* The present thread if it is to be looked at. */
static __always_inline struct thread *thread_here(struct pt_regs *regs)
{
	struct thread *thread = place_of(regs);
	if (!everyone)
		return thread && thread->regs == (u64)regs ? thread : NULL;
	if (!thread)
		return NULL;
	if (thread->regs != (u64)regs) {
		thread->regs = (u64)regs;
		thread->passed_over = 0;
	}
	return thread->passed_over ? NULL : thread;
}

static __always_inline bool is_wanted(u32 row)
{
	return !is_filtered || wanted[row / 64 % (ROWS / 64)] >> row % 64 & 1;
}

/* (registers, number) */
SEC("tp_btf/sys_enter")
int count(u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];
	if (!thread_here(regs))
		return 0;
	u32 number = row_of(regs, ctx[1]);
	struct row *row = is_wanted(number) ? row_here(number) : NULL;
	if (row)
		row->calls++;
	return 0;
}

/* (registers, number) */
SEC("tp_btf/sys_enter")
int enter(u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];
	struct thread *thread = thread_here(regs);
	if (!thread)
		return 0;
	u32 number = row_of(regs, ctx[1]);
	if (!is_wanted(number))
		return 0;
	thread->row = number;
	/* Last, so that our own work is not timed. */
	thread->start_ns = bpf_ktime_get_ns();
	return 0;
}

static __always_inline void lose(void)
{
	struct control *control = the_control();
	if (control)
		__sync_fetch_and_add(&control->lost, 1);
}

static __always_inline void tell(struct pt_regs *regs, u64 end_ns, u64 took_ns, u32 row, s64 result)
{
	struct slow *slow = bpf_ringbuf_reserve(&slow_calls, sizeof(*slow), 0);
	if (!slow) {
		struct control *control = the_control();
		if (control)
			__sync_fetch_and_add(&control->untold, 1);
		return;
	}
	slow->end_ns = end_ns;
	slow->took_ns = took_ns;
	slow->row = row;
	slow->tid = (u32)bpf_get_current_pid_tgid();
	slow->result = result;
	if (field_exists(regs->di)) {
		slow->arguments[0] = regs->di;
		slow->arguments[1] = regs->si;
		slow->arguments[2] = regs->dx;
		slow->arguments[3] = regs->r10;
		slow->arguments[4] = regs->r8;
		slow->arguments[5] = regs->r9;
	} else {
		slow->arguments[0] = regs->orig_x0;
		slow->arguments[1] = regs->regs[1];
		slow->arguments[2] = regs->regs[2];
		slow->arguments[3] = regs->regs[3];
		slow->arguments[4] = regs->regs[4];
		slow->arguments[5] = regs->regs[5];
	}
	bpf_get_current_comm(slow->command, sizeof(slow->command));
	bpf_ringbuf_submit(slow, 0);
}

/* (registers, result) */
SEC("tp_btf/sys_exit")
int finish(u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];
	struct thread *thread = place_of(regs);
	if (!thread || thread->regs != (u64)regs) {
		if (everyone && thread && thread->regs)
			lose();
		return 0;
	}
	/* Without beginning: a child's first return, or we came in the middle of it. */
	if (!thread->start_ns)
		return 0;
	u64 now = bpf_ktime_get_ns();
	u64 ns = now - thread->start_ns;
	thread->start_ns = 0;
	u32 number = thread->row & (ROWS - 1);
	struct row *row = row_here(number);
	if (!row)
		return 0;
	row->total_ns += ns;
	if (ns > row->longest_ns)
		row->longest_ns = ns;
	if (off_cpu && thread->off_ns) {
		row->off_ns += thread->off_ns;
		thread->off_ns = 0;
	}
	u32 bucket = bucket_of(ns);
	opaque(bucket);
	row->buckets[bucket & (BUCKETS - 1)]++;
	s64 result = ctx[1];
	if (slow_ns && ns >= slow_ns)
		tell(regs, now, ns, number, result);
	if (result >= 0) {
		row->bytes += result;
	} else if (result > -ERRNOS) {
		u32 errno = -result;
		u64 *counts = bpf_map_lookup_elem(&errors, &number);
		opaque(errno);
		if (counts && errno < ERRNOS)
			__sync_fetch_and_add(&counts[errno], 1);
	}
	return 0;
}

static __always_inline void join(struct control *control, struct task_struct *task)
{
	struct pt_regs *regs = bpf_task_pt_regs(task);
	struct thread *thread = place_of(regs);
	if (!thread)
		return;
	/* Two threads may come for one place at a time. */
	u64 nobody = __sync_val_compare_and_swap(&thread->regs, 0, (u64)regs);
	if (nobody == (u64)regs)
		return; /* it is the same thread by another id, perhaps in the call that gave it that */
	if (nobody) {
		__sync_fetch_and_add(&control->collisions, 1);
		return;
	}
	thread->start_ns = 0;
	thread->off_ns = 0;
	thread->off_since_ns = 0;
}

static __always_inline struct thread *thread_of(struct task_struct *task)
{
	struct pt_regs *regs = bpf_task_pt_regs(task);
	struct thread *thread = place_of(regs);
	return thread && thread->regs == (u64)regs ? thread : NULL;
}

static __always_inline void leave(struct task_struct *task)
{
	struct thread *thread = thread_of(task);
	if (!thread)
		return;
	struct row *row = row_here(thread->row & (ROWS - 1));
	if (thread->start_ns && row)
		row->unfinished++;
	thread->start_ns = 0;
	thread->regs = 0;
}

static __always_inline void pass_over(struct task_struct *task)
{
	struct pt_regs *regs = bpf_task_pt_regs(task);
	struct thread *thread = place_of(regs);
	if (!thread)
		return;
	thread->passed_over = 1;
	thread->regs = (u64)regs;
}

/* The thread that is followed and in a call, else NULL. */
static __always_inline struct thread *in_call(struct task_struct *task)
{
	if (!everyone && !followed(task->pid))
		return NULL;
	struct thread *thread = thread_of(task);
	return thread && thread->start_ns ? thread : NULL;
}

/* (preempted, previous task, next task): who leaves the CPU in a call, and who comes back. */
SEC("tp_btf/sched_switch")
int on_switch(u64 *ctx)
{
	struct thread *leaves = in_call((void *)ctx[1]);
	struct thread *comes = in_call((void *)ctx[2]);
	if (!leaves && !comes)
		return 0;
	u64 now = bpf_ktime_get_ns();
	if (leaves)
		leaves->off_since_ns = now;
	if (comes && comes->off_since_ns) {
		comes->off_ns += now - comes->off_since_ns;
		comes->off_since_ns = 0;
	}
	return 0;
}
