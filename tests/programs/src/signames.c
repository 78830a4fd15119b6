/* The names of signals for dash, whose own come from a generator under another licence. */
#include <signal.h>
const char *const signal_names[NSIG + 1] = {
    "EXIT", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR",
    "SYS", [SIGSYS + 1 ... NSIG - 1] = "RT", [NSIG] = 0,
};
