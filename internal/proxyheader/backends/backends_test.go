//go:build header_backends && linux

package backends

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
)

// Where the container's servers listen.
var (
	nginxAt      = netip.AddrPortFrom(container, 80)
	haproxyAt    = netip.AddrPortFrom(container, 81)
	smtpdAt      = netip.AddrPortFrom(container, 25)
	postscreenAt = netip.AddrPortFrom(container, 26)
)

// page asks for a page.
func page(t *testing.T, conn net.Conn) {
	t.Helper()
	_, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	rig.Check(t, err)
	if got, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200 ") {
		t.Errorf("the client read %q, %v; want a page", got, err)
	}
}

// greeting waits for the server to speak first.
func greeting(t *testing.T, conn net.Conn) {
	t.Helper()
	if got, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(got, "220") {
		t.Errorf("the client read %q, %v; want a greeting", got, err)
	}
}

// TestServersLogTheClient_moby15086: servers that people run log the client's address and port, and the address that it
// asked for, by both versions of the protocol; a client by IPv6 of a container that has IPv4 alone, too.
func TestServersLogTheClient_moby15086(t *testing.T) {
	l := newLab(t)
	postfix := startPostfix(t, l.container)
	for _, test := range []struct {
		name    string
		at      netip.AddrPort
		server  *server
		talk    func(*testing.T, net.Conn)
		logs    string
		without bool // it does not log what was asked for
	}{
		{"nginx", nginxAt, startNginx(t, l.container), page, "from %v port %d at %v port %d\n", false},
		{"HAProxy", haproxyAt, startHAProxy(t, l.container, haproxyAt), page, "from %v port %d at %v port %d\n", false},
		{"Postfix smtpd", smtpdAt, postfix, greeting, ": connect from unknown[%v]:%d\n", true},
		{"Postfix postscreen", postscreenAt, postfix, greeting, "CONNECT from [%v]:%d to [%v]:%d\n", false},
	} {
		answers(t, l.host, test.at)
		for i, frontend := range []netip.Addr{host4, host6} {
			for version := 1; version <= 2; version++ {
				t.Run(fmt.Sprintf("%s %v v%d", test.name, frontend, version), func(t *testing.T) {
					frontend := netip.AddrPortFrom(frontend, test.at.Port()+uint16(1000*(2*i+version)))
					l.publish(t, frontend, test.at, fmt.Sprintf("-proxy-protocol=v%d", version))
					conn := l.dial(t, frontend)
					test.talk(t, conn)
					client := conn.LocalAddr().(*net.TCPAddr).AddrPort()
					want := []any{client.Addr(), client.Port(), frontend.Addr(), frontend.Port()}
					if test.without {
						want = want[:2]
					}
					test.server.says(t, fmt.Sprintf(test.logs, want...))
				})
			}
		}
	}
}

// TestNoOpenRelay_mailcow3598: a mail server that trusts its own networks, of which the proxy's address is one, relays for
// anybody who comes by way of the proxy; not if it is told who that is.
func TestNoOpenRelay_mailcow3598(t *testing.T) {
	l := newLab(t)
	startPostfix(t, l.container)
	answers(t, l.host, smtpdAt)
	frontend := netip.AddrPortFrom(host6, 25)
	l.publish(t, frontend, smtpdAt, "-proxy-protocol", "v2")
	conn := l.dial(t, frontend)
	replies := bufio.NewReader(conn)
	for _, step := range []struct{ say, want string }{
		{"", "220"}, {"EHLO client.test", "250"}, {"MAIL FROM:<a@client.test>", "250"}, {"RCPT TO:<b@elsewhere.test>", "554"},
	} {
		if step.say != "" {
			_, err := io.WriteString(conn, step.say+"\r\n")
			rig.Must(t, err)
		}
		reply, err := replies.ReadString('\n')
		for err == nil && strings.HasPrefix(reply, "250-") {
			reply, err = replies.ReadString('\n')
		}
		if err != nil || !strings.HasPrefix(reply, step.want) {
			t.Fatalf("to %q the server said %q, %v; want %s", step.say, reply, err, step.want)
		}
	}
}

// TestBehindHAProxy: what a load balancer in front tells of its clients is what a server behind is told.
func TestBehindHAProxy(t *testing.T) {
	l := newLab(t)
	server := startNginx(t, l.container)
	answers(t, l.host, nginxAt)
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) {
			port := map[string]uint16{"v1": 8001, "v2": 8002}[version]
			frontend, in := netip.AddrPortFrom(outer, port), netip.AddrPortFrom(balancer, port)
			l.publish(t, frontend, nginxAt, "-accept-proxy-protocol", inner.String(), "-proxy-protocol", "v1")
			send := map[string]string{"v1": "send-proxy", "v2": "send-proxy-v2"}[version]
			run(t, l.balancer, "haproxy", "-db", "-f", file(t, filepath.Join(t.TempDir(), "cfg"), fmt.Sprintf(`
defaults
	timeout connect 30s
	timeout client 30s
	timeout server 30s
listen balancer
	bind %v
	server host %v %s
`, in, frontend, send)))
			answers(t, l.client, in)
			conn := l.dial(t, in)
			page(t, conn)
			client := conn.LocalAddr().(*net.TCPAddr).AddrPort()
			server.says(t, fmt.Sprintf("from %v port %d at %v port %d\n", client.Addr(), client.Port(), in.Addr(), in.Port()))
		})
	}
}

func startNginx(t *testing.T, in *netlab.Namespace) *server {
	t.Helper()
	dir := t.TempDir()
	return run(t, in, "nginx", "-e", "stderr", "-p", dir, "-c", file(t, filepath.Join(dir, "conf"), fmt.Sprintf(`
daemon off;
master_process off;
pid %s/pid;
events {}
http {
	set_real_ip_from %s;
	real_ip_header proxy_protocol;
	log_format told "from $remote_addr port $proxy_protocol_port "
		"at $proxy_protocol_server_addr port $proxy_protocol_server_port";
	access_log /dev/stdout told;
	server {
		listen %v proxy_protocol;
		return 200 "hello";
	}
}
`, dir, gateway, nginxAt)))
}

func startHAProxy(t *testing.T, in *netlab.Namespace, at netip.AddrPort) *server {
	t.Helper()
	return run(t, in, "haproxy", "-db", "-f", file(t, filepath.Join(t.TempDir(), "cfg"), fmt.Sprintf(`
global
	log stdout format raw local0
defaults
	mode http
	timeout client 30s
frontend pages
	bind %v accept-proxy
	log global
	log-format "from %%ci port %%cp at %%fi port %%fp"
	http-request return status 200
`, at)))
}

// startPostfix starts a mail server that trusts the network that the host's proxy is in. (With inet_protocols = ipv4 it would
// refuse the headers of clients by IPv6, though they come by IPv4.)
func startPostfix(t *testing.T, in *netlab.Namespace) *server {
	t.Helper()
	dir := t.TempDir()
	owner, err := user.Lookup("postfix")
	rig.Must(t, err)
	uid, err := strconv.Atoi(owner.Uid)
	rig.Must(t, err)
	rig.Must(t, os.Chmod(filepath.Dir(dir), 0o755)) // its processes give up root's rights
	for name, owner := range map[string]int{
		"etc": 0, "data": uid, "spool": 0, "spool/pid": 0, "spool/private": uid, "spool/public": uid,
	} {
		path := filepath.Join(dir, name)
		rig.Must(t, errors.Join(os.MkdirAll(path, 0o755), os.Chown(path, owner, -1)))
	}
	etc := filepath.Join(dir, "etc")
	file(t, filepath.Join(etc, "main.cf"), fmt.Sprintf(`
compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
maillog_file = /dev/stdout
myhostname = portsplice.test
mydestination = portsplice.test
mynetworks = %[2]v
inet_interfaces = %[3]v
inet_protocols = all
alias_maps =
local_recipient_maps =
smtpd_peername_lookup = no
smtpd_client_port_logging = yes
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_upstream_proxy_protocol = haproxy
postscreen_upstream_proxy_protocol = haproxy
postscreen_cache_map =
`, dir, netip.PrefixFrom(gateway, 24).Masked(), container))
	file(t, filepath.Join(etc, "master.cf"), fmt.Sprintf(`
%v inet n - n - - smtpd
%v inet n - n - 1 postscreen
smtpd pass - - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
anvil unix - - n - 1 anvil
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
cleanup unix n - n - 0 cleanup
dnsblog unix - - n - 0 dnsblog
`, smtpdAt, postscreenAt))
	return run(t, in, "/usr/lib/postfix/sbin/master", "-c", etc, "-d")
}
