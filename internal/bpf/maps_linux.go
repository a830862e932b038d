package bpf

import (
	"errors"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Bounds of the maps. A map takes 16 bytes of the kernel for each, and what the entries need that there are.
const (
	maxPorts     = 1 << 14
	maxAddresses = 1 << 12
)

// addressKey and portKey are keys of maps. The programs build a portKey, whose beginning is an addressKey.
type addressKey struct {
	Cookie  uint64 // of the network namespace
	Address [16]byte
}

type portKey struct {
	addressKey
	Port [4]byte // two bytes in network order, and two of zero
	_    uint32
}

// portValue is what a portKey leads to.
type portValue struct {
	Address    [16]byte // the backend's
	Port       [4]byte
	Translated uint32 // 1: clients of IPv6, a backend of IPv4
	Bypassed   uint64 // connections
	Generation uint64
}

// Where the programs find the fields.
const (
	valuePort       = 16
	valueTranslated = 20
	valueBypassed   = 24
	valueGeneration = 32

	askedPort       = 16 // as in struct asked, below
	askedGeneration = 24
)

// maps are shared by the programs.
type maps struct{ ports, addresses, asked *ebpf.Map }

func newMaps() (m *maps, err error) {
	m = new(maps)
	for _, s := range []struct {
		at   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&m.ports, ebpf.MapSpec{Name: "bypass_ports", Type: ebpf.Hash, KeySize: 32, ValueSize: 40, MaxEntries: maxPorts,
			Flags: unix.BPF_F_NO_PREALLOC}},
		{&m.addresses, ebpf.MapSpec{Name: "bypass_addrs", Type: ebpf.Hash, KeySize: 24, ValueSize: 4,
			MaxEntries: maxAddresses, Flags: unix.BPF_F_NO_PREALLOC}},
		{&m.asked, askedSpec()},
	} {
		if *s.at, err = ebpf.NewMap(&s.spec); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	return m, nil
}

func askedSpec() ebpf.MapSpec {
	word := &btf.Int{Name: "unsigned int", Size: 4}
	return storageSpec("bypass_asked", &btf.Struct{Name: "asked", Size: 32, Members: []btf.Member{
		{Name: "address", Type: &btf.Array{Index: word, Type: word, Nelems: 4}},
		{Name: "port", Type: word, Offset: 8 * askedPort},
		{Name: "generation", Type: &btf.Int{Name: "unsigned long long", Size: 8}, Offset: 8 * askedGeneration},
	}}, 32)
}

// storageSpec is of a map that is part of sockets. The kernel refuses one without types (bpf_local_storage_map_check_btf).
func storageSpec(name string, value btf.Type, size uint32) ebpf.MapSpec {
	return ebpf.MapSpec{Name: name, Type: ebpf.SkStorage, KeySize: 4, ValueSize: size, Flags: unix.BPF_F_NO_PREALLOC,
		Key: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}, Value: value}
}

func (m *maps) close() error {
	return errors.Join(m.ports.Close(), m.addresses.Close(), m.asked.Close())
}

// wire is a port as the kernel's sockets have it.
func wire(port uint16) [4]byte { return [4]byte{byte(port >> 8), byte(port)} }

// keyOf is the key of a frontend.
func keyOf(cookie uint64, frontend netip.AddrPort) portKey {
	return portKey{addressKey: addressKey{cookie, frontend.Addr().As16()}, Port: wire(frontend.Port())}
}
