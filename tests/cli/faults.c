/* Programs of known page faults for tests/cli/faults.rs. The memory in question lies where the Go
 * runtime has its heap: there nothing else of a C program is, so that it is counted alone. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096L
#define PLACE ((char *)0xc000000000)
#define HUGE_PAGE (2L << 20)

static char *map(long bytes, int flags, int file)
{
	char *memory = mmap(PLACE, bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, file, 0);
	if (memory == MAP_FAILED)
		exit(3);
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	return memory;
}

static char *fresh(long pages)
{
	return map(pages * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

__attribute__((noinline)) static void write_pages(char *memory, long from, long to)
{
	for (long page = from; page < to; page++)
		((volatile char *)memory)[page * PAGE] = 1;
}

static long read_pages(char *memory, long pages)
{
	long sum = 0;
	for (long page = 0; page < pages; page++)
		sum += ((volatile char *)memory)[page * PAGE];
	return sum;
}

/* A frame of its own round the writes, for stacks. */
__attribute__((noinline)) static void writer(char *memory, long pages)
{
	write_pages(memory, 0, pages);
	asm volatile("" ::: "memory");
}

static char *shared_by_threads;

static void *in_thread(void *from)
{
	write_pages(shared_by_threads, (long)from, (long)from + 25);
	return NULL;
}

static void *on_stack(void *unused)
{
	char buffer[100 * PAGE];
	write_pages(buffer, 0, 100);
	return NULL;
}

static void wait_for_children(void)
{
	while (wait(NULL) > 0)
		;
}

int main(int argc, char **argv)
{
	const char *what = argv[1];
	long pages = atol(argv[2]);
	int file = argc > 3 ? open(argv[3], O_RDWR) : -1;
	if (!strcmp(what, "write")) {
		writer(fresh(pages), pages);
	} else if (!strcmp(what, "read")) {
		read_pages(fresh(pages), pages);
	} else if (!strcmp(what, "fork")) {
		/* Fresh pages; the child copies them, and the parent has them alone again. */
		char *memory = fresh(pages);
		write_pages(memory, 0, pages);
		if (!fork()) {
			write_pages(memory, 0, pages);
			_exit(0);
		}
		wait_for_children();
		write_pages(memory, 0, pages);
	} else if (!strcmp(what, "kernel")) {
		int zero = open("/dev/zero", O_RDONLY);
		if (read(zero, fresh(pages), pages * PAGE) != pages * PAGE)
			return 3;
	} else if (!strcmp(what, "shared-file")) {
		char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
		write_pages(memory, 0, pages);
	} else if (!strcmp(what, "private-file")) {
		char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
		write_pages(memory, 0, pages);
	} else if (!strcmp(what, "cold-file")) {
		if (fsync(file) || posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED))
			return 3;
		char *memory = mmap(NULL, pages * PAGE, PROT_READ, MAP_PRIVATE, file, 0);
		madvise(memory, pages * PAGE, MADV_RANDOM);
		read_pages(memory, pages);
	} else if (!strcmp(what, "shared")) {
		write_pages(map(pages * PAGE, MAP_SHARED | MAP_ANONYMOUS, -1), 0, pages);
	} else if (!strcmp(what, "huge")) {
		char *memory = map(pages * HUGE_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		madvise(memory, pages * HUGE_PAGE, MADV_HUGEPAGE);
		for (long page = 0; page < pages; page++)
			memory[page * HUGE_PAGE] = 1;
	} else if (!strcmp(what, "populate")) {
		map(pages * PAGE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1);
	} else if (!strcmp(what, "named")) {
		char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		madvise(memory, pages * PAGE, MADV_NOHUGEPAGE);
		if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory, pages * PAGE, "our arena"))
			return 3;
		write_pages(memory, 0, 1);
		usleep(500000);
		write_pages(memory, 1, pages);
	} else if (!strcmp(what, "stack")) {
		pthread_t thread;
		pthread_create(&thread, NULL, on_stack, NULL);
		pthread_join(thread, NULL);
	} else if (!strcmp(what, "family")) {
		/* Three children, four threads, and a child that becomes another program. */
		for (int child = 0; child < 3; child++)
			if (!fork()) {
				writer(fresh(pages), pages);
				_exit(0);
			}
		wait_for_children();
		pthread_t threads[4];
		shared_by_threads = fresh(100);
		for (long thread = 0; thread < 4; thread++)
			pthread_create(&threads[thread], NULL, in_thread, (void *)(25 * thread));
		for (int thread = 0; thread < 4; thread++)
			pthread_join(threads[thread], NULL);
		if (!fork())
			execl("/proc/self/exe", argv[0], "write", argv[2], NULL);
		wait_for_children();
	} else if (!strcmp(what, "always")) {
		/* As long as there is who started it. */
		for (pid_t parent = getppid(); getppid() == parent;) {
			write_pages(fresh(pages), 0, pages);
			usleep(1000);
		}
	} else {
		return 2;
	}
	return 0;
}
