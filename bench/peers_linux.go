package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/portsplice/portsplice/bench/internal/failure"
)

// endpoint is where a command listens and, if it is a proxy, connects to.
type endpoint struct {
	protocol string
	address  netip.AddrPort
	ports    int // from that of the address on
	backend  netip.AddrPort
	options  string // of its listener
}

func (e endpoint) last() uint16 { return e.address.Port() + uint16(max(1, e.ports)) - 1 }

// newCommand writes the configuration, and describes the process. It is the first of a PID namespace, so that what it
// forks ends with it.
func (l *lab) newCommand(c command, e endpoint) *process {
	config := filepath.Join(l.dir, filepath.Base(c.programs[0])+"."+e.protocol+".conf")
	port := strconv.Itoa(int(e.address.Port()))
	if e.ports > 1 {
		port = fmt.Sprintf("%s-%d", port, e.last())
	}
	words := strings.NewReplacer("{ip}", e.address.Addr().String(), "{port}", port,
		"{backend}", e.backend.String(), "{protocol}", e.protocol, "{options}", e.options, "{config}", config, "{dir}", l.dir)
	failure.Check(os.WriteFile(config, []byte(words.Replace(c.config)), 0o644)) // some servers are not root's
	p := l.newProcess(find(c.programs...), strings.Fields(words.Replace(c.arguments))...)
	p.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC
	return p
}

// newPeer describes a peer.
func (l *lab) newPeer(e endpoint) *process {
	e.options = l.proxy.peer.options[e.protocol]
	p := l.newCommand(l.proxy.peer.command, e)
	if l.proxy.peer.inherits {
		p.ExtraFiles = []*os.File{l.listen(e)}
		p.Env = append(p.Env, "LISTEN_FDS=1", "LISTEN_PID=1")
	}
	return p
}

// Of clients that begin at the same time, one is sent what belongs to another: datagrams that wait on the socket when
// it is connected to the first of their senders go with it to that client's process.
const mixesUp = "gives datagrams of one client to another"

// peers are what users pick instead of docker-proxy, set up as their documentation says and as fast as they go, whether
// they are installed or not.
func peers() []Proxy {
	all := []Proxy{
		// Left to itself (splice-auto) HAProxy never splices here. Made to, it has up to 2.2 times the throughput of
		// streams, and down to 0.76 of the rate of small messages (bench/results/2026-11-22-6.18.44). So it has two
		// rows.
		haproxy("haproxy", "option splice-auto"),
		haproxy("haproxy-splice", "option splice-request", "option splice-response"),
		{Name: "nginx", Protocols: both, manyPorts: true, peer: peer{
			// Datagrams need a socket for each worker, or a client has a session in every one of them.
			options: map[string]string{udp: "udp reuseport"},
			command: command{programs: []string{"nginx"}, arguments: "-e stderr -c {config}", config: `
daemon off;
pid {config}.pid;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
worker_processes auto;
events { worker_connections 65536; }
stream {
	server {
		listen {port} {options};
		proxy_pass {backend};
		proxy_timeout 1h;
		proxy_buffer_size 128k;
	}
}
`}}},
		{Name: "systemd-socket-proxyd", Protocols: []string{tcp}, descriptors: socketsAndPipes, peer: peer{
			inherits: true,
			command: command{programs: []string{"/lib/systemd/systemd-socket-proxyd"},
				arguments: "--connections-max=65536 {backend}"}}},
		{Name: "socat", Protocols: both,
			Cannot: map[string]string{
				"udp-echo/size=200/conns=64/window=1":     mixesUp,
				"udp-oneshot/size=60,200/clients=1500":    mixesUp,
				"udp-idle/flows=" + fmt.Sprint(mostFlows): mixesUp,
			},
			peer: peer{
				options: map[string]string{tcp: ",backlog=4096"}, // 5 otherwise, and SYNs are dropped
				command: command{programs: []string{"socat"},
					arguments: "-b 131072 {protocol}4-listen:{port},fork,reuseaddr{options} {protocol}4:{backend}"}}},
	}
	for i, p := range all {
		all[i].Peer, all[i].Path = true, find(p.peer.programs...)
	}
	return all
}

func haproxy(name string, options ...string) Proxy {
	return Proxy{Name: name, Protocols: []string{tcp}, manyPorts: true,
		descriptors: 2.5, // that it reckons with: it may have a pipe for every fourth connection
		peer: peer{command: command{programs: []string{"haproxy"}, arguments: "-db -q -f {config}", config: `
defaults
	mode tcp
	` + strings.Join(options, "\n\t") + `
	timeout connect 10s
	timeout client 1h
	timeout server 1h
listen port
	bind 0.0.0.0:{port}
	server container {backend}
`}}}
}
