/* The page faults of followed threads: when each began and ended, and what it did. It begins with
 * the exception's tracepoint, or where the architecture has none with the kernel's own count of
 * faults, and ends with the kernel's count of those that are done. Records go into a ring a CPU
 * that user space maps. */
#include "follow.h"
#include "faults.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* The registers are those of both architectures. */
struct bpf_perf_event_data {
	struct {
		u64 sp, ip, pc;
	} regs;
	u64 addr;
};

#pragma clang attribute pop

/* Set before the programs are loaded. */
const volatile u32 entries = 4096;  /* of each CPU's ring: a power of two */
const volatile u32 huge_order = 9;  /* what a huge page is made of, as a power of two of pages */
const volatile bool with_stacks;
const volatile bool is_outermost;   /* our namespace of process ids is the initial one */
const volatile u32 nr_mmap, nr_madvise, nr_mlock, nr_mlock2, nr_mlockall;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* times the CPUs: the loader sets it, here and below */
	__type(key, u32);
	__type(value, struct lane);
} lanes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct fault);
} faults SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64[FRAMES]);
} stacks SEC(".maps");

static __always_inline struct fault_slot *own_slot(void)
{
	return (void *)followed(bpf_get_current_task_btf()->pid);
}

static __always_inline void join(struct control *control, struct task_struct *task)
{
}

static __always_inline void leave(struct task_struct *task)
{
}

static __always_inline void pass_over(struct task_struct *task)
{
}

/* The process as user space calls it, by the namespace of the processes themselves. */
static __always_inline u32 shown_tgid(struct fault_slot *slot)
{
	if (is_outermost)
		return slot->tgid;
	if (!slot->shown_tgid) {
		struct pid *pid = bpf_get_current_task_btf()->group_leader->thread_pid;
		struct upid upid = {};
		bpf_probe_read_kernel(&upid, sizeof(upid), &pid->numbers[pid->level]);
		slot->shown_tgid = upid.nr;
	}
	return slot->shown_tgid;
}

/* The place for one more record on this CPU; NULL when there is none. */
static __always_inline struct fault *place(u32 *key, struct lane **lane, u64 ns)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct lane *own = bpf_map_lookup_elem(&lanes, &cpu);
	if (!own)
		return NULL;
	u64 head = own->head;
	if (head - *(volatile u64 *)&own->tail >= entries) {
		own->lost++;
		own->lost_ns += ns;
		return NULL;
	}
	*key = cpu * entries + (head & (entries - 1));
	*lane = own;
	return bpf_map_lookup_elem(&faults, key);
}

static __always_inline u32 short_ns(u64 ns)
{
	return ns > 0xffffffff ? 0xffffffff : ns;
}

/* (address, registers, error code) */
static __always_inline int begin(u64 address, u32 code)
{
	struct fault_slot *slot = own_slot();
	if (!slot)
		return 0;
	slot->address = address;
	slot->code = code;
	slot->seen = 0;
	/* Last, so that our own work is not timed. */
	slot->start_ns = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/page_fault_user")
int begin_user(u64 *ctx)
{
	return begin(ctx[0], ctx[2] & 0xff);
}

SEC("tp_btf/page_fault_kernel")
int begin_kernel(u64 *ctx)
{
	return begin(ctx[0], ctx[2] & 0xff);
}

/* PERF_COUNT_SW_PAGE_FAULTS, which counts before the fault is handled. */
SEC("perf_event")
int begin_counted(struct bpf_perf_event_data *ctx)
{
	u64 instruction;
	/* Opaque, or the compiler makes one load of both, at one of two places, which the verifier
	 * does not allow. */
	if (field_exists(ctx->regs.ip)) {
		instruction = ctx->regs.ip;
		opaque(instruction);
	} else {
		instruction = ctx->regs.pc;
		opaque(instruction);
	}
	/* The kernel's own addresses are those with the highest bit. */
	bool is_user = !(instruction >> 63);
	return begin(ctx->addr, NO_CODE | (is_user ? USER : 0));
}

/* (page, order, …) */
SEC("tp_btf/mm_page_alloc")
int on_alloc(u64 *ctx)
{
	struct fault_slot *slot = own_slot();
	if (!slot)
		return 0;
	u32 order = ctx[1];
	if (slot->start_ns)
		slot->seen |= order >= huge_order ? ALLOCATED | HUGE : ALLOCATED;
	else if (slot->call_ns && order < 32)
		slot->call_pages += 1 << order;
	return 0;
}

/* How far the stack pointer may be away when a stack grows. */
#define NEAR (256 << 10)

static __always_inline int finish(struct bpf_perf_event_data *ctx, u32 outcome)
{
	u64 now = bpf_ktime_get_ns();
	struct fault_slot *slot = own_slot();
	if (!slot || !slot->start_ns || slot->address != ctx->addr) {
		u32 cpu = bpf_get_smp_processor_id();
		struct lane *own = bpf_map_lookup_elem(&lanes, &cpu);
		if (own)
			own->unbegun++;
		return 0;
	}
	u64 start = slot->start_ns, address = slot->address;
	u32 flags = slot->code | slot->seen | outcome;
	/* Before the stack is walked, which may itself fault. */
	slot->start_ns = 0;
	struct lane *lane;
	u32 key;
	struct fault *fault = place(&key, &lane, now - start);
	if (!fault)
		return 0;
	if (address - ctx->regs.sp + NEAR < 2 * NEAR)
		flags |= NEAR_SP;
	fault->end_ns = now;
	fault->address = address;
	fault->handler_ns = short_ns(now - start);
	fault->tid_or_pages = slot->tid;
	fault->tgid = shown_tgid(slot);
	fault->flags = flags;
	fault->frames = 0;
	if (with_stacks) {
		u64 *stack = bpf_map_lookup_elem(&stacks, &key);
		if (stack) {
			long bytes = bpf_get_stack(ctx, stack, FRAMES * sizeof(u64), BPF_F_USER_STACK);
			fault->frames = bytes > 0 ? bytes / sizeof(u64) : 0;
		}
	}
	__sync_fetch_and_add(&lane->head, 1);
	return 0;
}

SEC("perf_event")
int end_minor(struct bpf_perf_event_data *ctx)
{
	return finish(ctx, 0);
}

SEC("perf_event")
int end_major(struct bpf_perf_event_data *ctx)
{
	return finish(ctx, MAJOR);
}

/* Of mman.h. */
#define MAP_LOCKED 0x2000
#define MAP_POPULATE 0x8000
#define MADV_POPULATE_READ 22
#define MADV_COLLAPSE 25

/* (registers, number): calls that make pages for memory at once. */
SEC("tp_btf/sys_enter")
int on_enter(u64 *ctx)
{
	struct fault_slot *slot = own_slot();
	if (!slot)
		return 0;
	u32 number = ctx[1];
	bool is_mmap = number == nr_mmap, is_madvise = number == nr_madvise;
	bool is_mlock = number == nr_mlock || number == nr_mlock2 || number == nr_mlockall;
	if (!is_mmap && !is_madvise && !is_mlock)
		return 0;
	struct pt_regs *regs = (void *)ctx[0];
	u64 address, third, fourth;
	if (field_exists(regs->di)) {
		address = regs->di;
		third = regs->dx;
		fourth = regs->r10;
	} else {
		address = regs->regs[0];
		third = regs->regs[2];
		fourth = regs->regs[3];
	}
	if (is_mmap && !(fourth & (MAP_POPULATE | MAP_LOCKED)))
		return 0;
	if (is_madvise && (third < MADV_POPULATE_READ || third > MADV_COLLAPSE))
		return 0;
	slot->call_address = is_mmap ? 0 : address;
	slot->call_pages = 0;
	slot->start_ns = 0;
	slot->call_ns = bpf_ktime_get_ns();
	return 0;
}

/* (registers, result) */
SEC("tp_btf/sys_exit")
int on_leave(u64 *ctx)
{
	struct fault_slot *slot = own_slot();
	if (!slot || !slot->call_ns)
		return 0;
	u64 now = bpf_ktime_get_ns(), start = slot->call_ns;
	slot->call_ns = 0;
	struct lane *lane;
	u32 key;
	struct fault *fault = place(&key, &lane, now - start);
	if (!fault)
		return 0;
	fault->end_ns = now;
	fault->address = slot->call_address ? slot->call_address : ctx[1];
	fault->handler_ns = short_ns(now - start);
	fault->tid_or_pages = slot->call_pages;
	fault->tgid = shown_tgid(slot);
	fault->flags = CALL;
	fault->frames = 0;
	__sync_fetch_and_add(&lane->head, 1);
	return 0;
}
