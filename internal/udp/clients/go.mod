module github.com/portsplice/portsplice/internal/udp/clients

go 1.26.0

require (
	github.com/portsplice/portsplice v0.0.0
	github.com/quic-go/quic-go v0.65.0
)

require (
	github.com/vishvananda/netlink v1.3.1 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
	go.uber.org/goleak v1.3.0 // indirect
	golang.org/x/crypto v0.54.0 // indirect
	golang.org/x/net v0.56.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/portsplice/portsplice => ../../..
