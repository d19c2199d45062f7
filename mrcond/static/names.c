/* Only in a static binary with glibc (see build.rs).
 *
 * glibc looks up names by what /etc/nsswitch.conf says, and loads a library of the machine for each source
 * that it does not have in it, such as `resolve` or `myhostname`. In a static binary, a library that was
 * made for another glibc ends the process with a signal. So we say what is asked, before anything else runs:
 * what is built in. */

#include <nss.h>

__attribute__((constructor)) static void use_what_is_built_in(void)
{
	__nss_configure_lookup("hosts", "files dns");
	__nss_configure_lookup("passwd", "files");
	__nss_configure_lookup("group", "files");
	__nss_configure_lookup("services", "files");
}
