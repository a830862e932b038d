package bench

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// peer is a program that users pick instead of docker-proxy, set up as its documentation says and as fast as it goes.
// In its arguments and its configuration stand {port} for the frontend's, {backend}, {protocol} and {config}, which is
// the path of the configuration file.
type peer struct {
	protocols []string
	programs  []string // names, or paths of what is not for users to start
	arguments string
	config    string
	inherits  bool              // the listening socket, as systemd hands it over
	cannot    map[string]string // by the name of a work: why it is not tried
}

// Of clients that begin at the same time, one is sent what belongs to another: datagrams that wait on the socket when it
// is connected to the first of their senders go with it to that client's process.
const mixesUp = "gives datagrams of one client to another"

// listenOptions are what a peer needs beyond its port, and where none is mentioned, nothing.
var listenOptions = map[string]string{
	"nginx " + udp: "udp reuseport",
	"socat " + tcp: ",backlog=4096", // 5 otherwise, and SYNs are dropped
}

// The names of the peers are in the order of the tables.
var peerNames = []string{"haproxy", "nginx", "systemd-socket-proxyd", "socat"}

var peersByName = map[string]peer{
	"haproxy": {
		protocols: []string{tcp},
		programs:  []string{"haproxy"},
		arguments: "-db -q -f {config}",
		config: `
defaults
	mode tcp
	option splice-auto
	timeout connect 10s
	timeout client 1h
	timeout server 1h
listen port
	bind 0.0.0.0:{port}
	server container {backend}
`,
	},
	// One socket for all workers, as usual; datagrams need one each, or a client would have a session in every worker.
	"nginx": {
		protocols: []string{tcp, udp},
		programs:  []string{"nginx"},
		arguments: "-e stderr -c {config}",
		config: `
daemon off;
pid {config}.pid;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
worker_processes auto;
events { worker_connections 65536; }
stream {
	server {
		listen {port} {listen};
		proxy_pass {backend};
		proxy_timeout 1h;
	}
}
`,
	},
	"systemd-socket-proxyd": {
		protocols: []string{tcp},
		programs:  []string{"/lib/systemd/systemd-socket-proxyd"},
		arguments: "--connections-max=65536 {backend}",
		inherits:  true,
	},
	"socat": {
		protocols: []string{tcp, udp},
		programs:  []string{"socat"},
		arguments: "{protocol}4-listen:{port},fork,reuseaddr{listen} {protocol}4:{backend}",
		cannot: map[string]string{
			echo(64, 1).Name:       mixesUp,
			idleFlows(10_000).Name: mixesUp,
		},
	},
}

// peers lists the peers, whether they are installed or not.
func peers() []Proxy {
	var all []Proxy
	for _, name := range peerNames {
		p := peersByName[name]
		all = append(all, Proxy{Name: name, Path: find(p.programs...), Protocols: p.protocols,
			Peer: true, Cannot: p.cannot})
	}
	return all
}

// startPeer starts a peer and waits until its port is open. It is the first process of a PID namespace, so that what it
// forks ends with it.
func (l *lab) startPeer(ctx context.Context, proxy Proxy, protocol string, port uint16, backend netip.AddrPort) (
	*process, error) {
	peer := peersByName[proxy.Name]
	config := filepath.Join(l.dir, proxy.Name+".conf")
	words := strings.NewReplacer("{port}", strconv.Itoa(int(port)), "{backend}", backend.String(),
		"{protocol}", protocol, "{config}", config, "{listen}", listenOptions[proxy.Name+" "+protocol])
	if err := os.WriteFile(config, []byte(words.Replace(peer.config)), 0o600); err != nil {
		return nil, err
	}
	p := newProcess(ctx, proxy.Path, strings.Fields(words.Replace(peer.arguments)))
	p.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	if peer.inherits {
		socket, err := l.listen(protocol, port)
		if err != nil {
			return nil, err
		}
		defer func() { _ = socket.Close() }() // the peer has its own
		p.ExtraFiles = []*os.File{socket}
		p.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_PID=1")
	}
	if err := l.host.Do(p.Start); err != nil {
		return nil, err
	}
	l.processes = append(l.processes, p)
	if err := p.awaitPort(ctx, protocol, port); err != nil {
		p.end()
		return nil, fmt.Errorf("%s: %w\n%s", p, err, p.stderr.bytes)
	}
	return p, nil
}

// awaitPort waits until somebody has the port in the process's namespace.
func (p *process) awaitPort(ctx context.Context, protocol string, port uint16) error {
	table := fmt.Sprintf("/proc/%d/net/%s", p.Process.Pid, protocol)
	open := fmt.Sprintf(":%04X 00000000:0000 ", port)
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(startPatience); time.Now().Before(deadline); {
		b, err := os.ReadFile(table)
		if err != nil {
			return err // the process has ended
		}
		if strings.Contains(string(b), open) {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("port %d was not open after %v", port, startPatience)
}
