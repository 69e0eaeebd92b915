/*
 * The write loop in plain C, the yardstick of `poise bench write`: 512 bytes to /dev/null, N and
 * 4 N times in one process after a warm-up. Prints the slope between both, in seconds a write.
 * Never counts anything.
 *
 *     write_loop N [large-first]
 *     write_loop N cpu      in CPU time
 *     write_loop N now      the time at which it begins, and nothing else
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char buffer[512];

static clockid_t clock_id = CLOCK_MONOTONIC;

static double seconds(void)
{
	struct timespec now;

	clock_gettime(clock_id, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double batch(int fd, long iterations)
{
	double start = seconds();

	for (long i = 0; i < iterations; i++) {
		if (write(fd, buffer, sizeof buffer) != (ssize_t)sizeof buffer) {
			perror("write_loop: write");
			exit(1);
		}
	}
	return seconds() - start;
}

int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 0;
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	const char *how = argc > 2 ? argv[2] : "";
	double small, large;

	if (n < 1 || fd < 0) {
		fputs("write_loop: usage: write_loop N [large-first]\n", stderr);
		return 2;
	}
	if (!strcmp(how, "now")) {
		printf("%.9f\n", seconds());
		return 0;
	}
	if (!strcmp(how, "cpu"))
		clock_id = CLOCK_PROCESS_CPUTIME_ID;
	batch(fd, n / 4 + 1);
	if (!strcmp(how, "large-first")) {
		large = batch(fd, 4 * n);
		small = batch(fd, n);
	} else {
		small = batch(fd, n);
		large = batch(fd, 4 * n);
	}
	printf("%.6e\n", (large - small) / (double)(3 * n));
	return 0;
}
