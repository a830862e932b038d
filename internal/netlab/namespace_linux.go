package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace without a name: it ends with Close and the processes in it. Its loopback is up.
type Namespace struct {
	handle netns.NsHandle
	links  *netlink.Handle
}

// New makes a namespace.
func New() (*Namespace, error) {
	n := &Namespace{handle: netns.None()}
	err := elsewhere(func() (err error) {
		n.handle, err = netns.New()
		return err
	})
	if err == nil {
		n.links, err = netlink.NewHandleAt(n.handle)
	}
	if err == nil {
		err = n.Up("lo")
	}
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("new network namespace: %w", err)
	}
	return n, nil
}

// Here is the namespace of the calling thread.
func Here() (*Namespace, error) { return open("own network namespace", netns.Get) }

// Of is the namespace of a process.
func Of(pid int) (*Namespace, error) {
	return open(fmt.Sprintf("network namespace of process %d", pid), func() (netns.NsHandle, error) { return netns.GetFromPid(pid) })
}

func open(which string, get func() (netns.NsHandle, error)) (*Namespace, error) {
	handle, err := get()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", which, err)
	}
	n := &Namespace{handle: handle}
	if n.links, err = netlink.NewHandleAt(handle); err != nil {
		n.Close()
		return nil, fmt.Errorf("%s: %w", which, err)
	}
	return n, nil
}

// Close lets go of the namespace.
func (n *Namespace) Close() {
	if n.links != nil {
		n.links.Close()
	}
	_ = n.handle.Close() // it was only read
}

// Do runs f on a thread inside. Sockets that f opens and processes that it starts belong to the namespace.
func (n *Namespace) Do(f func() error) error {
	return elsewhere(func() error {
		if err := n.Enter(); err != nil {
			return err
		}
		return f()
	})
}

// Enter takes the calling thread inside. The goroutine must be locked to it, and never unlocked.
func (n *Namespace) Enter() error {
	if err := netns.Set(n.handle); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return nil
}

// elsewhere runs f, which changes the namespace of its thread, on a goroutine of its own.
func elsewhere(f func() error) error {
	done := make(chan error)
	go func() {
		err := errors.New("the function has not come to its end") // as when it ends a test
		defer func() { done <- err }()
		err = andBack(f)
	}()
	return <-done
}

// andBack runs f and takes the thread back. A thread that cannot come back ends. Otherwise it lives on, as it must:
// what it has started may die with it.
func andBack(f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		return fmt.Errorf("own network namespace: %w", err)
	}
	err = f()
	back := netns.Set(home)
	if back == nil {
		runtime.UnlockOSThread()
	}
	return errors.Join(err, back, home.Close())
}

// Sysctl sets a variable of the namespace, by its path under /proc/sys/net.
func (n *Namespace) Sysctl(path, value string) error {
	return n.Do(func() error { return os.WriteFile("/proc/sys/net/"+path, []byte(value), 0) })
}

// Up gives an interface addresses, and sets it up.
func (n *Namespace) Up(name string, addresses ...netip.Prefix) error {
	link, err := n.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	for _, prefix := range addresses {
		if err := n.links.AddrAdd(link, address(prefix)); err != nil {
			return fmt.Errorf("add %v to interface %s: %w", prefix, name, err)
		}
	}
	if err := n.links.LinkSetUp(link); err != nil {
		return fmt.Errorf("set interface %s up: %w", name, err)
	}
	return nil
}

// Down sets an interface down, as if its cable had been pulled.
func (n *Namespace) Down(name string) error {
	link, err := n.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	if err := n.links.LinkSetDown(link); err != nil {
		return fmt.Errorf("set interface %s down: %w", name, err)
	}
	return nil
}

func address(prefix netip.Prefix) *netlink.Addr {
	mask := net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())
	a := &netlink.Addr{IPNet: &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: mask}}
	if prefix.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // ready for use at once
	}
	return a
}

// RemoveAddress takes an address from an interface.
func (n *Namespace) RemoveAddress(name string, prefix netip.Prefix) error {
	link, err := n.links.LinkByName(name)
	if err == nil {
		err = n.links.AddrDel(link, address(prefix))
	}
	if err != nil {
		return fmt.Errorf("remove %v from interface %s: %w", prefix, name, err)
	}
	return nil
}

// Index is the number of an interface, which is also the zone of link-local addresses.
func (n *Namespace) Index(name string) (int, error) {
	link, err := n.links.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find interface %s: %w", name, err)
	}
	return link.Attrs().Index, nil
}

// Cable joins two namespaces by interfaces of that name, with an address each, and waits until both carry.
func Cable(name string, a *Namespace, addrA netip.Prefix, b *Namespace, addrB netip.Prefix) error {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = name
	veth := &netlink.Veth{LinkAttrs: attributes, PeerName: name, PeerNamespace: netlink.NsFd(b.handle)}
	if err := a.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth pair %s: %w", name, err)
	}
	return errors.Join(a.Up(name, addrA), b.Up(name, addrB), a.carrier(name), b.carrier(name))
}

// carrier waits until the kernel sends on an interface. It begins some time after both ends of a cable are up, at
// each end by itself, and a SYN or its answer that is lost before is sent again a second later.
func (n *Namespace) carrier(name string) error {
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-poll.C {
		link, err := n.links.LinkByName(name)
		switch {
		case err != nil:
			return fmt.Errorf("find interface %s: %w", name, err)
		case link.Attrs().OperState == netlink.OperUp:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("interface %s is %v", name, link.Attrs().OperState)
		}
	}
}
