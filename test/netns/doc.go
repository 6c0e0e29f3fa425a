// Package netns takes the description of a small network in and makes it out of
// anonymous network namespaces, for tests that need a kernel: namespaces, links
// between them, sockets of any user, group, mark and source address, and servers
// that report which of them was reached.
//
// Nothing has a name in the file system. A namespace lives as long as the process
// that made it, and the children started in it die with it. So nothing is left
// behind even by kill -9, and any number of networks can exist at once. It takes
// root (CAP_SYS_ADMIN and CAP_NET_ADMIN) and works on Linux only; elsewhere the
// package is empty.
//
// What one has to know about the kernel:
//
//   - A route "local default" without a table lands in table local, which is
//     looked up first and then swallows every other route. AnyIP puts it in
//     table main.
//   - With AnyIP, TCP and IPv4 datagrams are answered from the address that
//     was asked, but an IPv6 datagram cannot be sent from it, and no socket
//     be bound to it, without IP_TRANSPARENT.
//   - A new IPv6 address can be bound before packets for it are local: the
//     local route comes by a work queue. Connect waits for it.
//   - net.ipv6.conf.default applies to links made later, so New disables
//     duplicate address detection before there is a link.
//   - The owner match compares the file system uid and gid of the thread that
//     called socket(2) or accept(2), not those of the process that sends.
//   - A connection that is rejected by ICMP while connect(2) still holds the
//     socket learns of it from the second SYN, after a second.
//   - /proc/net and /sys/class/net do not follow the namespace of a thread
//     other than the main one; /proc/thread-self/net and /proc/sys/net do.
package netns
