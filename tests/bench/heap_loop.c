/*
 * The heap loop in plain C, the yardstick of `poise faults`: 128 MiB of base pages mapped, written
 * to page by page, and unmapped, N times after a warm-up. Prints its CPU time, in seconds a page.
 * Never counts anything.
 *
 *     heap_loop N
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE 4096L
#define PAGES 32768L

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void pass(long pages)
{
	char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED) {
		perror("heap_loop: mmap");
		exit(1);
	}
	madvise(memory, pages * PAGE, MADV_NOHUGEPAGE);
	for (long page = 0; page < pages; page++)
		((volatile char *)memory)[page * PAGE] = 1;
	munmap(memory, pages * PAGE);
}

int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 0;
	double start;

	if (n < 1) {
		fputs("heap_loop: usage: heap_loop N\n", stderr);
		return 2;
	}
	pass(PAGES / 8);
	start = seconds();
	for (long i = 0; i < n; i++)
		pass(PAGES);
	printf("%.6e\n", (seconds() - start) / (double)(n * PAGES));
	return 0;
}
