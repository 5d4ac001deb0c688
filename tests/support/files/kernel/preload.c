/* Loaded into linux.uml, in place of the C library's functions. */
typedef unsigned long size_t;
struct iovec { char *base; size_t length; };
extern void *dlsym(void *handle, const char *name);
extern void *memcpy(void *to, const void *from, size_t length);
extern void *memset(void *to, int byte, size_t length);

enum { GETREGSET = 0x4204, SETREGSET = 0x4205, XSTATE = 0x202 };

static long (*next)(long request, long pid, void *address, void *data);
static char whole[65536];
static size_t length;

/*
 * linux.uml sets the floating-point registers of its processes with a buffer of 2696 bytes, and Linux takes nothing but
 * a whole one: processors with AMX have 11008. What follows is never in use here, so it is zero.
 */
long ptrace(long request, long pid, void *address, void *data)
{
    struct iovec *given = data, all;

    if (!next)
        next = dlsym((void *)-1L, "ptrace"); /* RTLD_NEXT */
    request = (int)request;
    pid = (int)pid;
    if (request != SETREGSET || address != (void *)XSTATE)
        return next(request, pid, address, data);
    if (!length) {
        all.base = whole;
        all.length = sizeof(whole);
        if (next(GETREGSET, pid, address, &all))
            return -1;
        length = all.length;
        memset(whole, 0, sizeof(whole));
    }
    memcpy(whole, given->base, given->length < length ? given->length : length);
    all.base = whole;
    all.length = length;
    return next(request, pid, address, &all);
}

/* Nothing on the disks is worth waiting for the real one. */
int fsync(int file)
{
    return 0;
}

int fdatasync(int file)
{
    return 0;
}
