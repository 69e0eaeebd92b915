/* Which threads are followed: from an exec on, or all of a process, with all that they create.
 * What each profiler keeps of a followed thread is the payload of its slot. */
#pragma once
#include "record.h"

/* Set before the programs are loaded: all threads of the machine are followed. */
const volatile bool everyone;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLOTS);
	__type(key, u32);
	__type(value, struct slot);
} slots SEC(".maps");

/* The slot that a thread has if it is followed. */
static __always_inline struct slot *slot_of(u32 tid)
{
	u32 key = tid & (SLOTS - 1);
	return bpf_map_lookup_elem(&slots, &key);
}

/* The slot of a thread that is followed, else NULL. */
static __always_inline struct slot *followed(u32 tid)
{
	struct slot *slot = slot_of(tid);
	return slot && slot->tid == tid ? slot : NULL;
}

static __always_inline struct control *the_control(void)
{
	u32 key = 0;
	return bpf_map_lookup_elem(&control, &key);
}

/* What a profiler does when a thread is followed from now on, when it is no longer, and when it
 * shall be passed over; it defines these. */
static __always_inline void join(struct control *control, struct task_struct *task);
static __always_inline void leave(struct task_struct *task);
static __always_inline void pass_over(struct task_struct *task);

static __always_inline struct slot *follow(struct control *control, struct task_struct *task)
{
	u32 tid = task->pid;
	struct slot *slot = slot_of(tid);
	if (!slot || slot->tid == tid)
		return slot;
	/* Two threads may come for one slot at a time. */
	if (__sync_val_compare_and_swap(&slot->tid, 0, tid) != 0) {
		__sync_fetch_and_add(&control->collisions, 1);
		return NULL;
	}
	slot->tgid = task->tgid;
	for (int i = 0; i < 7; i++)
		slot->payload[i] = 0;
	join(control, task);
	__sync_fetch_and_add(&control->followed, 1);
	if (!control->first_ns)
		control->first_ns = bpf_ktime_get_ns();
	return slot;
}

/* (parent, child): the child of a followed thread is followed. */
SEC("tp_btf/sched_process_fork")
int on_fork(u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	struct control *control = the_control();
	if (control && followed(parent->pid))
		follow(control, child);
	return 0;
}

/* (task, its thread id before): a thread that executes takes the id of its process's leader. */
SEC("tp_btf/sched_process_exec")
int on_exec(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	u32 tid = task->pid, old_tid = ctx[1];
	struct control *control = the_control();
	if (!control)
		return 0;
	if (control->waiting == tid) {
		control->waiting = 0;
		follow(control, task);
	}
	if (old_tid == tid)
		return 0;
	struct slot *old = followed(old_tid);
	if (!old)
		return 0;
	struct slot *slot = follow(control, task);
	if (slot) {
		/* It is none more. */
		__sync_fetch_and_add(&control->followed, -1);
		for (int i = 0; i < 7; i++)
			slot->payload[i] = old->payload[i];
	}
	old->tid = 0;
	return 0;
}

/* (task): it is on its way out and returns to user space no more. */
SEC("tp_btf/sched_process_exit")
int on_exit(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct slot *slot = followed(task->pid);
	if (slot || everyone)
		leave(task);
	if (slot)
		slot->tid = 0;
	return 0;
}

/* Finds the wanted process or thread. Who reads this iterator sees the tasks of its own namespace
 * of process ids, and names them as that does. */
SEC("iter/task")
int on_task(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct control *control = the_control();
	if (!task || !control)
		return 0;
	u64 purpose = control->purpose;
	u32 level = bpf_get_current_task_btf()->thread_pid->level;
	control->level = level;
	struct pid *pid = purpose == FOLLOW_THREAD ? task->thread_pid : task->group_leader->thread_pid;
	struct upid upid = {};
	bpf_probe_read_kernel(&upid, sizeof(upid), &pid->numbers[level]);
	if (upid.nr != control->wanted)
		return 0;
	if (purpose == FOLLOW_AT_EXEC) {
		control->waiting = task->pid;
	} else if (purpose == FORGET) {
		struct slot *slot = followed(task->pid);
		leave(task);
		if (slot)
			slot->tid = 0;
	} else if (purpose == PASS_OVER) {
		pass_over(task);
	} else {
		follow(control, task);
	}
	return 0;
}
