/* The kernel's types and helpers, as far as our programs use them. Never a copy of a kernel header:
 * offsets come from the running kernel's BTF (CO-RE), so only names and types of fields matter. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;
typedef _Bool bool;

#define NULL ((void *)0)
#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* How a map is described to the loader. */
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_STACK_TRACE = 7,
	BPF_MAP_TYPE_RINGBUF = 27,
};

/* User space may map it: it then reads and writes its values without system calls. */
#define BPF_F_MMAPABLE (1U << 10)
#define BPF_F_USER_STACK (1ULL << 8)
#define BPF_F_CURRENT_CPU 0xffffffffULL
#define BPF_NOEXIST 1

/* The kernel's own numbers of its helpers, from enum bpf_func_id. */
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*bpf_get_current_comm)(void *into, u32 bytes) = (void *)16;
static long (*bpf_perf_event_read_value)(void *map, u64 flags, void *value, u32 bytes) = (void *)55;
static long (*bpf_get_stack)(void *ctx, void *into, u32 bytes, u64 flags) = (void *)67;
static long (*bpf_probe_read_kernel)(void *into, u32 bytes, const void *from) = (void *)113;
static long (*bpf_probe_read_kernel_str)(void *into, u32 bytes, const void *from) = (void *)115;
static void *(*bpf_ringbuf_reserve)(void *ring, u64 bytes, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, u64 flags) = (void *)132;
static void (*bpf_ringbuf_discard)(void *data, u64 flags) = (void *)133;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;
static struct pt_regs *(*bpf_task_pt_regs)(struct task_struct *task) = (void *)175;

/* Whether the running kernel has a field. */
#define field_exists(field) __builtin_preserve_field_info(field, 2)

/* What a raw tracepoint's n-th argument is, as the kernel's BTF has it. */
#define ARG(ctx, n) (((u64 *)(ctx))[n])

/* The compiler must not reason about a value across this: clang 14 splits the bounds checks of
 * 64-bit values into halves that the verifier cannot follow. */
#define opaque(x) asm volatile("" : "+r"(x))

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct pt_regs {
	u64 cs, di, si, dx, r10, r8, r9;  /* x86 */
	u64 pstate, regs[31], orig_x0;    /* arm64 */
};

struct pid_namespace;

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	u32 level;
	struct upid numbers[1];
};

struct task_struct {
	int pid;
	int tgid;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	u32 __state;
	u64 start_time;
	struct files_struct *files;
	char comm[16];
};

struct fdtable {
	u32 max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct super_block {
	unsigned long s_magic;
};

struct inode {
	u16 i_mode;
	struct super_block *i_sb;
};

struct qstr {
	const char *name;
};

struct dentry {
	struct qstr d_name;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct inode *f_inode;
	struct path f_path;
};

struct bpf_iter__task {
	struct task_struct *task;
};

#pragma clang attribute pop
