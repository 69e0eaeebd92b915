/* How often followed threads call the kernel, how long it takes, and with what result. Each call
 * is timed between the tracepoints at its entry and exit; tables are one a CPU and nothing in
 * them is shared, for the kernel runs these programs without preemption. */
#include "follow.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Set before the programs are loaded, so that what is not wanted is not even compiled. */
const volatile u64 slow_ns;      /* calls that take as long are told one by one; 0: none is */
const volatile bool is_filtered; /* only these syscalls are looked at, a bit each */
const volatile u64 wanted[ROWS / 64];
const volatile u32 events;       /* how many are counted in calls */
const volatile u32 by;           /* what calls are counted apart by */
const volatile u32 cells_a_cpu = ROWS; /* rows, those of places included */
const volatile u64 takes_fd[ROWS / 64]; /* which are given a descriptor first, a bit each */

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

/* A counter of each CPU, a table an event: loaders give such a table no more entries than CPUs. */
struct counters {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(max_entries, 1); /* the loader sets it, here and below */
	__type(key, u32);
	__type(value, u32);
};
struct counters counters_0 SEC(".maps"), counters_1 SEC(".maps"), counters_2 SEC(".maps"),
	counters_3 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct tally);
} tallies SEC(".maps");

/* What was counted in the calls of each row. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64[EVENTS]);
} counts SEC(".maps");

/* What followed threads counted on each CPU, in calls and between them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64[EVENTS]);
} whole SEC(".maps");

/* Which row of its own a place has for a syscall, counted from 1; 0: none yet. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64[ROWS]);
} cells SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct place);
} places SEC(".maps");

/* Who has a place: a number with when it began, for numbers are given again, or a name. */
struct who {
	union {
		struct {
			u64 id;
			u64 began;
		};
		char command[16];
	};
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct who);
	__type(value, u64);
} known SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* the loader sets it */
	__type(value, struct slow);
} slow_calls SEC(".maps");

/* The row that a place has for a syscall on every CPU; that of the rest when there is no room. */
static __always_inline u32 cell_of(u64 place, u32 row)
{
	u32 key = place;
	u64 *own = place ? bpf_map_lookup_elem(&cells, &key) : NULL;
	if (!own)
		return row;
	u64 *cell = &own[row & (ROWS - 1)];
	if (!*cell) {
		struct control *control = the_control();
		u64 free = control ? __sync_fetch_and_add(&control->cells, 1) + ROWS : cells_a_cpu;
		__sync_val_compare_and_swap(cell, 0, (free < cells_a_cpu ? free : row) + 1);
	}
	return *cell - 1;
}

/* Where a thread's calls of a syscall count on this CPU. */
static __always_inline u32 key_here(struct thread *thread, u32 row)
{
	u32 cpu = bpf_get_smp_processor_id();
	return by ? cpu * cells_a_cpu + cell_of(thread->place, row) : cpu * ROWS + row;
}

static __always_inline struct row *row_here(struct thread *thread, u32 row)
{
	u32 key = key_here(thread, row);
	return bpf_map_lookup_elem(&rows, &key);
}

struct bpf_perf_event_value {
	u64 counter, enabled, running;
};

/* What a counter of this CPU says. */
static __always_inline u64 counter_here(void *counters)
{
	struct bpf_perf_event_value value = {};
	if (bpf_perf_event_read_value(counters, BPF_F_CURRENT_CPU, &value, sizeof(value))) {
		struct control *control = the_control();
		if (control)
			__sync_fetch_and_add(&control->uncounted, 1);
	}
	return value.counter;
}

/* What all of them say. */
static __always_inline void look_at_counters(u64 now[EVENTS])
{
	now[0] = counter_here(&counters_0);
	now[1] = events > 1 ? counter_here(&counters_1) : 0;
	now[2] = events > 2 ? counter_here(&counters_2) : 0;
	now[3] = events > 3 ? counter_here(&counters_3) : 0;
}

static __always_inline u32 place_key(u64 regs);

static __always_inline struct tally *tally_of(struct thread *thread)
{
	u32 key = place_key(thread->regs);
	return bpf_map_lookup_elem(&tallies, &key);
}

/* A call begins, or comes back to a CPU. */
static __always_inline void count_on(struct thread *thread, bool begins)
{
	struct tally *tally = tally_of(thread);
	if (!tally)
		return;
	for (int i = 0; i < EVENTS && begins; i++)
		tally->sum[i] = 0;
	look_at_counters(tally->since);
}

/* A call leaves the CPU. */
static __always_inline void count_off(struct thread *thread)
{
	struct tally *tally = tally_of(thread);
	u64 now[EVENTS];
	if (!tally)
		return;
	look_at_counters(now);
	for (int i = 0; i < EVENTS; i++)
		tally->sum[i] += now[i] - tally->since[i];
}

/* A thread comes to this CPU. */
static __always_inline void run_on(struct thread *thread)
{
	struct tally *tally = tally_of(thread);
	if (!tally)
		return;
	look_at_counters(tally->ran);
	tally->is_on = 1;
}

/* It leaves it. */
static __always_inline void run_off(struct thread *thread)
{
	struct tally *tally = tally_of(thread);
	u32 cpu = bpf_get_smp_processor_id();
	u64 *sums = bpf_map_lookup_elem(&whole, &cpu);
	u64 now[EVENTS];
	if (!tally || !sums || !tally->is_on)
		return;
	tally->is_on = 0;
	look_at_counters(now);
	for (int i = 0; i < EVENTS; i++)
		sums[i] += now[i] - tally->ran[i];
}

/* A call has ended, which counts in the row of this key. */
static __always_inline void count_in(struct thread *thread, u32 key)
{
	struct tally *tally = tally_of(thread);
	u64 *sums = bpf_map_lookup_elem(&counts, &key);
	if (!tally || !sums)
		return;
	for (int i = 0; i < EVENTS; i++)
		sums[i] += tally->sum[i];
}

/* A place of its own for whom a task's calls count: the thread alone, of a process that has this
 * place, or all like it. */
static __always_inline u64 place_as(struct task_struct *task, struct who *who, bool is_thread,
				    u64 process)
{
	u64 *found = bpf_map_lookup_elem(&known, who);
	if (found)
		return *found;
	struct control *control = the_control();
	u64 new = control ? __sync_fetch_and_add(&control->places, 1) + 1 : PLACES;
	u32 key = new;
	struct place *place = new < PLACES ? bpf_map_lookup_elem(&places, &key) : NULL;
	if (!place)
		return 0;
	place->process = process;
	const char *command = is_thread ? task->comm : task->group_leader->comm;
	bpf_probe_read_kernel_str(place->command, sizeof(place->command),
				  by == BY_COMMAND ? who->command : command);
	place->id = is_thread ? task->pid : task->tgid;
	if (!bpf_map_update_elem(&known, who, &new, BPF_NOEXIST))
		return new;
	/* Another thread of the same came first. */
	place->id = 0;
	found = bpf_map_lookup_elem(&known, who);
	return found ? *found : 0;
}

/* Added to the number of a process, for its first thread has the same. */
#define IS_PROCESS (1ull << 32)

/* The place that a task's calls count for. */
static __always_inline u64 placed(struct task_struct *task)
{
	if (by == BY_NOTHING || by == BY_FD_TYPE)
		return 0;
	struct who who = {};
	struct task_struct *leader = task->group_leader;
	if (by == BY_COMMAND) {
		bpf_probe_read_kernel_str(who.command, sizeof(who.command), leader->comm);
		return place_as(task, &who, 0, 0);
	}
	u64 process = 0;
	if (by != BY_THREAD) {
		who.id = task->tgid | IS_PROCESS;
		who.began = leader->start_time;
		process = place_as(task, &who, 0, 0);
	}
	if (by == BY_PROCESS)
		return process;
	who.id = task->pid;
	who.began = task->start_time;
	u64 thread = place_as(task, &who, 1, process);
	return thread ? thread : process;
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
static __always_inline u32 place_key(u64 regs)
{
	return (u32)regs >> 14 & (THREADS - 1);
}

static __always_inline struct thread *place_of(struct pt_regs *regs)
{
	u32 key = place_key((u64)regs);
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
		/* Whoever had it may be in a call. */
		thread->regs = (u64)regs;
		thread->start_ns = 0;
		thread->passed_over = 0;
		thread->place = placed(bpf_get_current_task_btf());
	}
	return thread->passed_over ? NULL : thread;
}

static __always_inline bool is_wanted(u32 row)
{
	return !is_filtered || wanted[row / 64 % (ROWS / 64)] >> row % 64 & 1;
}

#define PROC_MAGIC 0x9fa0
#define SYSFS_MAGIC 0x62656572
#define CGROUP2_MAGIC 0x63677270
#define TRACEFS_MAGIC 0x74726163
#define DEBUGFS_MAGIC 0x64626720
#define ANONYMOUS_MAGIC 0x09041934

/* Eight letters as a number, as a little-endian machine has them. */
#define WORD(a, b, c, d, e, f, g, h)                                                               \
	((u64)(a) | (u64)(b) << 8 | (u64)(c) << 16 | (u64)(d) << 24 | (u64)(e) << 32 |             \
	 (u64)(f) << 40 | (u64)(g) << 48 | (u64)(h) << 56)

/* What a file without a path is: its name tells. */
static __always_inline u64 anonymous(struct file *file)
{
	struct dentry *dentry = NULL;
	const char *name = NULL;
	u64 word = 0;
	bpf_probe_read_kernel(&dentry, sizeof(dentry), &file->f_path.dentry);
	bpf_probe_read_kernel(&name, sizeof(name), &dentry->d_name.name);
	bpf_probe_read_kernel(&word, sizeof(word), name);
	switch (word) {
	case WORD('[', 'e', 'v', 'e', 'n', 't', 'f', 'd'): return FD_EVENTFD;
	case WORD('[', 'e', 'v', 'e', 'n', 't', 'p', 'o'): return FD_EPOLL;
	case WORD('[', 't', 'i', 'm', 'e', 'r', 'f', 'd'): return FD_TIMERFD;
	case WORD('[', 's', 'i', 'g', 'n', 'a', 'l', 'f'): return FD_SIGNALFD;
	case WORD('[', 'i', 'o', '_', 'u', 'r', 'i', 'n'): return FD_IO_URING;
	case WORD('i', 'n', 'o', 't', 'i', 'f', 'y', 0): return FD_INOTIFY;
	default: return FD_ANONYMOUS;
	}
}

/* What the descriptor is of that the call is given. Nobody is kept from closing it meanwhile. */
static __always_inline u64 fd_type(struct pt_regs *regs, u32 number)
{
	if (number == FOREIGN || !(takes_fd[number / 64 % (ROWS / 64)] >> number % 64 & 1))
		return FD_NONE;
	s32 fd = field_exists(regs->di) ? regs->di : regs->orig_x0;
	if (fd == -100) /* AT_FDCWD */
		return FD_NONE;
	struct fdtable *table = bpf_get_current_task_btf()->files->fdt;
	if ((u32)fd >= table->max_fds)
		return FD_BAD;
	struct file *file = NULL;
	struct inode *inode = NULL;
	struct super_block *super = NULL;
	unsigned long magic = 0;
	u16 mode = 0;
	bpf_probe_read_kernel(&file, sizeof(file), &table->fd[fd]);
	if (!file)
		return FD_BAD;
	bpf_probe_read_kernel(&inode, sizeof(inode), &file->f_inode);
	bpf_probe_read_kernel(&mode, sizeof(mode), &inode->i_mode);
	switch (mode >> 12) {
	case 1: return FD_PIPE;
	case 2: return FD_CHARACTER;
	case 4: return FD_DIRECTORY;
	case 6: return FD_BLOCK;
	case 10: return FD_LINK;
	case 12: return FD_SOCKET;
	}
	bpf_probe_read_kernel(&super, sizeof(super), &inode->i_sb);
	bpf_probe_read_kernel(&magic, sizeof(magic), &super->s_magic);
	switch (magic) {
	case PROC_MAGIC:
	case SYSFS_MAGIC:
	case CGROUP2_MAGIC:
	case TRACEFS_MAGIC:
	case DEBUGFS_MAGIC: return FD_PROC;
	case ANONYMOUS_MAGIC: return anonymous(file);
	}
	return mode >> 12 == 8 ? FD_FILE : FD_OTHER;
}

/* (registers, number) */
SEC("tp_btf/sys_enter")
int count(u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];
	struct thread *thread = thread_here(regs);
	if (!thread)
		return 0;
	u32 number = row_of(regs, ctx[1]);
	if (!is_wanted(number))
		return 0;
	if (by == BY_FD_TYPE)
		thread->place = fd_type(regs, number);
	struct row *row = row_here(thread, number);
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
	if (by == BY_FD_TYPE)
		thread->place = fd_type(regs, number);
	if (events)
		count_on(thread, 1);
	/* An earlier call may not have been seen to its end. */
	thread->off_ns = 0;
	thread->off_since_ns = 0;
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

static __always_inline void tell(u64 *ctx, u64 end_ns, u64 took_ns, u32 row)
{
	struct pt_regs *regs = (void *)ctx[0];
	struct control *control = the_control();
	if (!control)
		return;
	struct slow *slow = bpf_ringbuf_reserve(&slow_calls, sizeof(*slow), 0);
	if (!slow) {
		__sync_fetch_and_add(&control->untold, 1);
		return;
	}
	slow->end_ns = end_ns;
	slow->took_ns = took_ns;
	slow->row = row;
	slow->tid = (u32)bpf_get_current_pid_tgid();
	slow->result = ctx[1];
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
	struct pid *pid = bpf_get_current_task_btf()->group_leader->thread_pid;
	struct upid upid = {};
	u32 level = control->level;
	bpf_probe_read_kernel(&upid, sizeof(upid), &pid->numbers[level]);
	slow->pid = upid.nr;
	long bytes = bpf_get_stack(ctx, slow->stack, sizeof(slow->stack), BPF_F_USER_STACK);
	slow->frames = bytes > 0 ? bytes / sizeof(u64) : 0;
	bpf_ringbuf_submit(slow, 0);
}

/* A thread is on a CPU again; whether it was off one, as far as it was told. */
static __always_inline bool come_back(struct thread *thread, u64 now)
{
	if (!thread->off_since_ns)
		return 0;
	thread->off_ns += now - thread->off_since_ns;
	thread->off_since_ns = 0;
	return 1;
}

/* A thread is seen on a CPU in a call. Nobody may have told that it came there: some kernels have
 * threads of their own that switch to another without a word. Then it came just now, and what was
 * counted meanwhile was others'. */
static __always_inline void settle(struct thread *thread, u64 now)
{
	if (!come_back(thread, now) && events)
		count_off(thread);
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
	/* Read once: another thread may take the place meanwhile. */
	u64 start_ns = thread->start_ns;
	opaque(start_ns);
	/* Without beginning: a child's first return, or we came in the middle of it. */
	if (!start_ns)
		return 0;
	u64 now = bpf_ktime_get_ns();
	u64 ns = now - start_ns;
	thread->start_ns = 0;
	u32 number = thread->row & (ROWS - 1);
	u32 key = key_here(thread, number);
	settle(thread, now);
	if (events)
		count_in(thread, key);
	struct row *row = bpf_map_lookup_elem(&rows, &key);
	if (!row)
		return 0;
	row->total_ns += ns;
	if (ns > row->longest_ns)
		row->longest_ns = ns;
	if (thread->off_ns)
		row->off_ns += thread->off_ns;
	u32 bucket = bucket_of(ns);
	opaque(bucket);
	row->buckets[bucket & (BUCKETS - 1)]++;
	s64 result = ctx[1];
	if (slow_ns && ns >= slow_ns)
		tell(ctx, now, ns, number);
	if (result >= 0) {
		row->bytes += result;
	} else if (result > -ERRNOS) {
		if (by)
			row->failed++;
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
	thread->place = placed(task);
	if (events) {
		struct tally *tally = tally_of(thread);
		if (tally)
			tally->is_on = 0;
		if (task->pid == (u32)bpf_get_current_pid_tgid())
			run_on(thread);
	}
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
	struct row *row = row_here(thread, thread->row & (ROWS - 1));
	if (thread->start_ns && row)
		row->unfinished++;
	if (events && !everyone)
		run_off(thread);
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
	struct task_struct *previous = (void *)ctx[1], *next = (void *)ctx[2];
	if (events && !everyone) {
		struct thread *off = followed(previous->pid) ? thread_of(previous) : NULL;
		struct thread *on = followed(next->pid) ? thread_of(next) : NULL;
		if (off)
			run_off(off);
		if (on)
			run_on(on);
	}
	struct thread *leaves = in_call(previous);
	struct thread *comes = in_call(next);
	if (!leaves && !comes)
		return 0;
	u64 now = bpf_ktime_get_ns();
	if (leaves) {
		settle(leaves, now);
		leaves->off_since_ns = now;
	}
	if (comes) {
		come_back(comes, now);
		if (events)
			count_on(comes, 0);
	}
	return 0;
}

static __always_inline void rename(struct place *place, struct task_struct *task, struct who *who)
{
	__builtin_memcpy(place->command, who->command, sizeof(who->command));
	/* A thread that executes has another number since. */
	place->id = task->pid;
}

/* (task, its new name, …): an exec gives one, too. */
SEC("tp_btf/task_rename")
int on_rename(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct thread *thread = thread_of(task);
	bool is_first = task->pid == task->tgid;
	struct who who = {};
	if (!thread)
		return 0;
	bpf_probe_read_kernel_str(who.command, sizeof(who.command), (void *)ctx[1]);
	if (by == BY_COMMAND) {
		if (is_first)
			thread->place = place_as(task, &who, 0, 0);
		return 0;
	}
	u32 key = thread->place;
	struct place *place = key ? bpf_map_lookup_elem(&places, &key) : NULL;
	if (!place)
		return 0;
	key = place->process;
	/* A process has the name of its first thread. */
	if (is_first || by == BY_THREAD || key)
		rename(place, task, &who);
	struct place *process = is_first && key ? bpf_map_lookup_elem(&places, &key) : NULL;
	if (process)
		rename(process, task, &who);
	return 0;
}
