// Package transparent is for backends that are to see their clients' own addresses: what speaks to one is a socket that is
// bound to the client's address, which is none of this host's (IP_TRANSPARENT in ip(7)).
//
// # Addresses
//
// A Path says for each client which address its backend is to see. Three cannot be shown, and are refused rather than
// made to look like this host, which a backend may trust:
//
//   - clients of the other family than the backend's,
//   - clients on the backend's own network: it would answer them directly, past this host, and they know of no such
//     connection,
//   - clients whose address is one on their link alone, or none at all.
//
// Clients on the loopback interface are this host, and the backend sees it: what comes from 127.0.0.1 would be dropped on
// the way (martian). So are clients with this host's address on the backend's network.
//
// # Ports
//
// The port is the kernel's choice, made when the connection is (IP_BIND_ADDRESS_NO_PORT), or of UDP one of the pool of
// package sourceport; not the client's. Otherwise clients would choose which ports of the host are taken: one that a socket
// was bound to by number, on whichever address, connect(2) chooses for nobody (__inet_hash_connect passes over it unless
// fastreuse is -1), and no UDP socket gets it on all addresses. TestPortsOfClients has such a host unable to connect. Nor
// are the clients' ports enough: one may have reached a backend by two frontends.
//
// # Answers
//
// What the backend answers goes to the client's address, and so comes to this host to be forwarded. It is the operator who
// has it delivered here instead: a packet filter marks what belongs to a transparent socket, and a rule has what is marked
// looked up in a table in which every address is local. docs/client-addresses.md has the commands.
//
// Answered looks whether that is so. That there is no rule at all is certain. Whether one leads to such a table is asked of
// the kernel, for a packet with the mark of each; as a rule may be for some clients alone, that it says no is only worth a
// line. Which packets are marked nobody can be asked.
package transparent
