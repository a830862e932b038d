package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// The addresses of a lab, from the block that RFC 2544 sets aside for benchmarks. Nothing else is there to take a
// port; all are below those that the kernel chooses.
var (
	hostAddr        = netip.MustParseAddr("198.18.0.1")
	containerAddr   = netip.MustParseAddr("198.18.0.2")
	messagesBackend = netip.AddrPortFrom(containerAddr, 900)
	streamsBackend  = netip.AddrPortFrom(containerAddr, 901)
)

// firstFrontend is the port of the first proxy, and the others follow.
const firstFrontend = 800

// portRange is for the ports that the kernel chooses. Every connection of crr leaves one in TIME_WAIT, and with the
// usual 28,000 the search for a free one would be what is measured.
const portRange = "1024 65535"

// lab is where one measurement takes place: two namespaces, the cable between them, and processes.
type lab struct {
	host, container *namespace
	processes       []*process
}

func newLab(ctx context.Context) (l *lab, err error) {
	l = new(lab)
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.host, err = newNamespace(); err != nil {
		return nil, err
	}
	if l.container, err = newNamespace(); err != nil {
		return nil, err
	}
	return l, l.cable(ctx)
}

// cable joins the namespaces.
func (l *lab) cable(ctx context.Context) error {
	const name = "veth"
	attributes := netlink.NewLinkAttrs()
	attributes.Name = name
	veth := &netlink.Veth{LinkAttrs: attributes, PeerName: name, PeerNamespace: netlink.NsFd(l.container.handle)}
	if err := l.host.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth pair: %w", err)
	}
	if err := l.container.up(name, containerAddr); err != nil {
		return err
	}
	if err := l.host.up(name, hostAddr); err != nil {
		return err
	}
	return errors.Join(l.container.carrier(ctx, name), l.host.carrier(ctx, name))
}

// close ends every process; the namespaces end with them.
func (l *lab) close() {
	for _, p := range l.processes {
		p.end()
	}
	for _, n := range []*namespace{l.host, l.container} {
		if n != nil {
			n.close()
		}
	}
}

// namespace is a network namespace without a name.
type namespace struct {
	handle netns.NsHandle
	links  *netlink.Handle
}

func newNamespace() (*namespace, error) {
	n := &namespace{handle: netns.None()}
	err := elsewhere(func() (err error) {
		if n.handle, err = netns.New(); err != nil {
			return fmt.Errorf("new network namespace: %w", err)
		}
		return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte(portRange), 0)
	})
	if err != nil {
		n.close()
		return nil, err
	}
	if n.links, err = netlink.NewHandleAt(n.handle); err != nil {
		n.close()
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	if err := n.up("lo", netip.Addr{}); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// do runs f inside.
func (n *namespace) do(f func() error) error {
	return elsewhere(func() error {
		if err := netns.Set(n.handle); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// elsewhere runs f, which changes the namespace of its thread, and takes the thread back. A thread that cannot come
// back ends. Otherwise it lives on, as it must: what it has started dies with it.
func elsewhere(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- fmt.Errorf("own network namespace: %w", err)
			return
		}
		err = f()
		back := netns.Set(home)
		if back == nil {
			runtime.UnlockOSThread()
		}
		done <- errors.Join(err, back, home.Close())
	}()
	return <-done
}

// up gives an interface an address, unless that is none, and sets it up.
func (n *namespace) up(name string, addr netip.Addr) error {
	link, err := n.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	if addr.IsValid() {
		a, err := netlink.ParseAddr(addr.String() + "/24")
		if err != nil {
			return err
		}
		if err := n.links.AddrAdd(link, a); err != nil {
			return fmt.Errorf("add %v to interface %s: %w", addr, name, err)
		}
	}
	if err := n.links.LinkSetUp(link); err != nil {
		return fmt.Errorf("set interface %s up: %w", name, err)
	}
	return nil
}

// carrier waits until the kernel sends on an interface. It begins some time after both ends of a cable are up, at each
// end by itself, and a SYN or its answer that is lost before is sent again a second later.
func (n *namespace) carrier(ctx context.Context, name string) error {
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for {
		link, err := n.links.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find interface %s: %w", name, err)
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("interface %s is %v: %w", name, link.Attrs().OperState, ctx.Err())
		}
	}
}

func (n *namespace) close() {
	if n.links != nil {
		n.links.Close()
	}
	_ = n.handle.Close() // it was only read
}
