/* How often followed threads call the kernel, how long it takes, and with what result. Each call
 * is timed between the tracepoints at its entry and exit; tables are one a CPU and nothing in
 * them is shared, for the kernel runs these programs without preemption. */
#define SLOT struct syscall_slot
#include "follow.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Set before the programs are loaded, so that what is not wanted is not even compiled. */
const volatile bool everyone;      /* all threads of the machine are followed, */
const volatile u32 own_tgid;       /* but not those of this process */
const volatile bool off_cpu;       /* time off the CPU is told apart */
const volatile bool is_filtered;   /* only these syscalls are looked at, a bit each */
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

static __always_inline struct row *row_here(u32 row)
{
	u32 key = bpf_get_smp_processor_id() * ROWS + row;
	return bpf_map_lookup_elem(&rows, &key);
}

/* x86: the call came by the 32-bit entry; arm64: the thread is a 32-bit one. */
#define TS_COMPAT 2
#define TIF_32BIT (1 << 22)

static __always_inline u32 row_of(struct task_struct *task, u64 number)
{
	bool is_foreign = field_exists(task->thread_info.status)
				  ? task->thread_info.status & TS_COMPAT
				  : task->thread_info.flags & TIF_32BIT;
	return number >= FOREIGN || is_foreign ? FOREIGN : number;
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

/* The slot of the present thread if it is to be looked at. */
static __always_inline struct slot *slot_here(struct task_struct *task)
{
	if (!everyone)
		return followed(task->pid);
	if (task->tgid == own_tgid)
		return NULL;
	struct slot *slot = slot_of(task->pid);
	if (slot)
		slot->tid = task->pid;
	return slot;
}

static __always_inline bool is_wanted(u32 row)
{
	return !is_filtered || wanted[row / 64 % (ROWS / 64)] >> row % 64 & 1;
}

/* (registers, number) */
SEC("tp_btf/sys_enter")
int count(u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	if (!slot_here(task))
		return 0;
	u32 number = row_of(task, ctx[1]);
	struct row *row = is_wanted(number) ? row_here(number) : NULL;
	if (row)
		row->calls++;
	return 0;
}

/* (registers, number) */
SEC("tp_btf/sys_enter")
int enter(u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct syscall_slot *slot = (void *)slot_here(task);
	if (!slot)
		return 0;
	u32 number = row_of(task, ctx[1]);
	if (!is_wanted(number))
		return 0;
	slot->row = number;
	/* Last, so that our own work is not timed. */
	slot->start_ns = bpf_ktime_get_ns();
	return 0;
}

static __always_inline void lose(void)
{
	struct control *control = the_control();
	if (control)
		__sync_fetch_and_add(&control->lost, 1);
}

/* (registers, result) */
SEC("tp_btf/sys_exit")
int finish(u64 *ctx)
{
	u32 tid = bpf_get_current_task_btf()->pid;
	struct syscall_slot *slot = (void *)slot_of(tid);
	if (!slot || slot->tid != tid) {
		if (everyone && slot && slot->tid)
			lose();
		return 0;
	}
	/* Without beginning: a child's first return, or we came in the middle of it. */
	if (!slot->start_ns)
		return 0;
	u64 ns = bpf_ktime_get_ns() - slot->start_ns;
	slot->start_ns = 0;
	u32 number = slot->row & (ROWS - 1);
	struct row *row = row_here(number);
	if (!row)
		return 0;
	row->total_ns += ns;
	if (ns > row->longest_ns)
		row->longest_ns = ns;
	if (off_cpu && slot->off_ns) {
		row->off_ns += slot->off_ns;
		slot->off_ns = 0;
	}
	u32 bucket = bucket_of(ns);
	opaque(bucket);
	row->buckets[bucket & (BUCKETS - 1)]++;
	s64 result = ctx[1];
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

static __always_inline void leave(struct slot *slot)
{
	struct syscall_slot *own = (void *)slot;
	struct row *row = row_here(own->row & (ROWS - 1));
	if (own->start_ns && row)
		row->unfinished++;
}

/* (preempted, previous task, next task): who leaves the CPU in a call, and who comes back. */
SEC("tp_btf/sched_switch")
int on_switch(u64 *ctx)
{
	struct task_struct *before = (void *)ctx[1], *next = (void *)ctx[2];
	struct syscall_slot *leaving = (void *)followed(before->pid);
	struct syscall_slot *coming = (void *)followed(next->pid);
	bool leaves = leaving && leaving->start_ns;
	bool comes = coming && coming->off_since_ns;
	if (!leaves && !comes)
		return 0;
	u64 now = bpf_ktime_get_ns();
	if (leaves)
		leaving->off_since_ns = now;
	if (comes) {
		coming->off_ns += now - coming->off_since_ns;
		coming->off_since_ns = 0;
	}
	return 0;
}
