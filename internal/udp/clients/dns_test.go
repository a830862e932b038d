package clients

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What the DNS server knows.
const domain = "portsplice.test"

var (
	answer = netip.MustParseAddr("198.18.0.7")
	text   = strings.Repeat("0123456789", 20) // five of which are more than the 512 bytes that DNS began with
)

// TestDNS asks a DNS server through the proxy, many questions at a time. Each is a client of its own.
func TestDNS(t *testing.T) {
	const askers, questions = 16, 50
	backend := serveDNS(t)
	for _, on := range []netip.Addr{ours(), netip.IPv6Loopback()} {
		t.Run(on.String(), func(t *testing.T) {
			frontend := freePort(t, on)
			p := serve(t, frontend, backend)
			resolver := resolverAt(frontend)
			var asking sync.WaitGroup
			for asker := range askers {
				asking.Go(func() {
					for question := range questions {
						name := fmt.Sprintf("host-%d-%d.%s.", asker, question, domain)
						if err := ask(resolver, name); err != nil {
							t.Error(err)
						}
					}
				})
			}
			asking.Wait()
			askText(t, resolver)
			c := p.counters(t)
			if c["datagrams-in"] < askers*questions || c["flows-total"] < askers || c["dropped"] != 0 {
				t.Errorf("%v; want at least %d datagrams to the backend", c, askers*questions)
			}
		})
	}
}

// serveDNS runs a DNS server until the test ends.
func serveDNS(t *testing.T) netip.AddrPort {
	t.Helper()
	at := freePort(t, ours())
	cmd := exec.Command("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
		"--bind-interfaces", "--user=root", "--group=root", "--pid-file=",
		"--listen-address="+at.Addr().String(), fmt.Sprint("--port=", at.Port()),
		fmt.Sprintf("--address=/%s/%v", domain, answer),
		fmt.Sprintf("--txt-record=%s,%s", domain, strings.Join([]string{text, text, text, text, text}, ",")))
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	t.Cleanup(func() {
		must(t, cmd.Process.Signal(syscall.SIGTERM))
		must(t, cmd.Wait())
	})
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); ; <-poll.C {
		err := ask(resolverAt(at), domain+".")
		if err == nil {
			return at
		}
		if time.Now().After(deadline) {
			t.Fatalf("the DNS server does not answer: %v", err)
		}
	}
}

// resolverAt asks one server, by UDP alone.
func resolverAt(server netip.AddrPort) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		if !strings.HasPrefix(network, "udp") {
			return nil, fmt.Errorf("the resolver wants to ask by %s", network)
		}
		return new(net.Dialer).DialContext(ctx, network, server.String())
	}}
}

func ask(r *net.Resolver, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	found, err := r.LookupNetIP(ctx, "ip4", name)
	if err == nil && (len(found) != 1 || found[0].Unmap() != answer) {
		err = fmt.Errorf("%s is %v, want %v", name, found, answer)
	}
	return err
}

// askText asks for a large answer.
func askText(t *testing.T, r *net.Resolver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	found, err := r.LookupTXT(ctx, domain+".")
	must(t, err)
	if got := strings.Join(found, ""); got != strings.Repeat(text, 5) {
		t.Errorf("the text has %d bytes, want %d", len(got), 5*len(text))
	}
}
