/* Programs whose syscalls are known to the call. Exact ones use raw syscalls that no C library
 * makes by itself. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *self;

static void repeat(long number, int times)
{
	for (int i = 0; i < times; i++)
		syscall(number, -1, 0);
}

static void look(int fd, int times)
{
	for (int i = 0; i < times; i++)
		syscall(SYS_flock, fd, 0);
}

static void *thread(void *unused)
{
	(void)unused;
	repeat(SYS_getuid, 500);
	return NULL;
}

static void *executing_thread(void *unused)
{
	(void)unused;
	repeat(SYS_getuid, 50);
	execl(self, self, "leaf", NULL);
	return NULL;
}

/* Three functions deep, with frame pointers (as it is compiled). */
static __attribute__((noinline)) void innermost(void)
{
	struct timespec pause = {0, 5000000};
#ifdef __x86_64__
	long result;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(SYS_nanosleep), "D"(&pause), "S"(NULL)
			 : "rcx", "r11", "memory");
#else
	syscall(SYS_nanosleep, &pause, NULL);
#endif
}

static __attribute__((noinline)) void outermost(void)
{
	innermost();
	__asm__ volatile("");
}

static void handle(int signal)
{
	(void)signal;
}

static long long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;
	return (x > y) - (x < y);
}

/* Tells the median of what it saw itself, in ns. */
static void tell(long long *all, int count)
{
	qsort(all, count, sizeof(*all), ascending);
	printf("%lld\n", all[count / 2]);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	self = argv[0];
	if (!strcmp(what, "leaf")) { /* 30 getgid */
		repeat(SYS_getgid, 30);
	} else if (!strcmp(what, "busy")) { /* 3 million getppid */
		repeat(SYS_getppid, 3000000);
	} else if (!strcmp(what, "family")) {
		/* 3 × 1000 getppid, 4 × 500 getuid, 2 × 30 getgid, 3 failing execve, 5 failing close */
		for (int i = 0; i < 3; i++)
			if (!fork()) {
				repeat(SYS_getppid, 1000);
				_exit(0);
			}
		pthread_t threads[4];
		for (int i = 0; i < 4; i++)
			pthread_create(&threads[i], NULL, thread, NULL);
		for (int i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
		for (int i = 0; i < 3; i++)
			execl("/no/such/program", "x", NULL);
		for (int i = 0; i < 5; i++)
			syscall(SYS_fchdir, -1);
		if (!fork()) {
			execl(self, self, "leaf", NULL);
			_exit(1);
		}
		if (!vfork()) {
			execl(self, self, "leaf", NULL);
			_exit(1);
		}
		while (wait(NULL) > 0)
			;
	} else if (!strcmp(what, "thread-exec")) {
		/* 50 getuid in a thread that becomes the process: 30 getgid */
		pthread_t other;
		pthread_create(&other, NULL, executing_thread, NULL);
		pause();
	} else if (!strcmp(what, "faulting")) {
		/* 64 page faults in one read; sleeps while a child has faults without end. */
		const size_t page = sysconf(_SC_PAGESIZE), size = 64 * page;
		const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
		char *fresh = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
		int zero = open("/dev/zero", O_RDONLY);
		madvise(fresh, size, MADV_NOHUGEPAGE);
		if (syscall(SYS_preadv, zero, &(struct iovec){fresh, size}, 1, 0, 0) != (long)size)
			return 1;
		pid_t child = fork();
		if (!child)
			for (;;) {
				madvise(fresh, size, MADV_DONTNEED);
				memset(fresh, 1, size);
			}
		for (int i = 0; i < 20; i++) {
			struct timespec pause = {0, 3000000};
			syscall(SYS_nanosleep, &pause, NULL);
		}
		kill(child, SIGKILL);
	} else if (!strcmp(what, "callers")) {
		/* A child ends right after its slow call. */
		if (!fork()) {
			outermost();
			_exit(0);
		}
		wait(NULL);
	} else if (!strcmp(what, "crowd")) {
		/* 1100 processes, one after the other, of one getppid each. */
		for (int i = 0; i < 1100; i++) {
			if (!vfork()) {
				syscall(SYS_getppid);
				_exit(0);
			}
			wait(NULL);
		}
	} else if (!strcmp(what, "types")) {
		/* Of each type of descriptor one more flock than of the one before. */
		sigset_t none;
		int ends[2], pair[2];
		sigemptyset(&none);
		if (pipe(ends) || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
			return 1;
		const int all[] = {
			open(self, O_RDONLY),	  open("/", O_RDONLY),
			ends[0],		  pair[0],
			open("/dev/null", O_RDWR), open("/proc/self/stat", O_RDONLY),
			eventfd(0, 0),		  epoll_create1(0),
			timerfd_create(CLOCK_MONOTONIC, 0), signalfd(-1, &none, 0),
			inotify_init(),		  999,
		};
		for (int i = 0; i < 12; i++)
			look(all[i], i + 1);
	} else if (!strcmp(what, "signals")) {
		/* 100 rt_sigreturn; interrupted nanosleeps */
		struct sigaction action = {.sa_handler = handle};
		sigaction(SIGUSR1, &action, NULL);
		for (int i = 0; i < 100; i++)
			syscall(SYS_kill, getpid(), SIGUSR1);
		struct itimerval often = {{0, 5000}, {0, 5000}};
		sigaction(SIGALRM, &action, NULL);
		setitimer(ITIMER_REAL, &often, NULL);
		for (int i = 0; i < 10; i++) {
			struct timespec second = {1, 0};
			syscall(SYS_nanosleep, &second, NULL);
		}
	} else if (!strcmp(what, "sleeps")) {
		long long all[200];
		for (int i = 0; i < 200; i++) {
			struct timespec pause = {0, 3000000};
			long long began = now();
			syscall(SYS_nanosleep, &pause, NULL);
			all[i] = now() - began;
		}
		tell(all, 200);
	} else if (!strcmp(what, "pipe")) {
		int ends[2];
		long long all[100];
		char byte = 0;
		if (pipe(ends))
			return 1;
		if (!fork()) {
			for (int i = 0; i < 100; i++) {
				usleep(2000);
				if (syscall(SYS_pwrite64, -1, &byte, 1, 0) != -1 || write(ends[1], &byte, 1) != 1)
					_exit(1);
			}
			_exit(0);
		}
		for (int i = 0; i < 100; i++) {
			long long began = now();
			if (read(ends[0], &byte, 1) != 1)
				return 1;
			all[i] = now() - began;
		}
		wait(NULL);
		tell(all, 100);
	} else if (!strcmp(what, "wait")) {
		/* Says that it is there, then makes 700 getppid once it has read a byte. */
		char byte;
		printf("ready\n");
		fflush(stdout);
		if (read(0, &byte, 1) < 0)
			return 1;
		repeat(SYS_getppid, 700);
		pthread_t other;
		pthread_create(&other, NULL, thread, NULL);
		pthread_join(other, NULL);
	} else if (!strcmp(what, "unfinished")) {
		/* A child that is in read(2) when the process ends. */
		int ends[2];
		char byte;
		if (pipe(ends))
			return 1;
		if (!fork()) {
			/* It outlives its parent, but not for long. */
			alarm(3);
			read(ends[0], &byte, 1);
			_exit(0);
		}
		usleep(20000);
		return 0;
	}
	return 0;
}
