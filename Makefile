# What a user or contributor does, by name. Everything that the tests need is installed from here.

GO       ?= go
VERSION  := $(shell git describe --tags --always --dirty --abbrev=12 2>/dev/null || echo unknown)
COMMIT   := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

# Of the commit, so that builds of it are the same whenever they are made.
export SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

TOOLS    := $(CURDIR)/bin/tools

STATICCHECK   := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
NFPM          := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
CYCLONEDX     := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
ROOTLESSKIT   := github.com/rootless-containers/rootlesskit/v3/cmd/rootlesskit@v3.3.0
DOCKER_PROXY  := github.com/moby/moby/v2/cmd/docker-proxy@v2.0.0-beta.24
BENCHSTAT     := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

# Debian packages: what routes packets; a real dockerd, what it needs, and clients and servers that others wrote; a kernel with SCTP that runs
# as a process, and other users of it; a DNS server; servers that take PROXY headers; Prometheus; and what the benchmarks compare
# with, and more clients and servers.
SHIM_PACKAGES   := musl-tools
ROUTE_PACKAGES  := nftables iptables iproute2
E2E_PACKAGES    := docker.io rootlesskit slirp4netns uidmap curl python3 nginx-light redis-server redis-tools postgresql rpm \
	systemd bpftool
SCTP_PACKAGES   := user-mode-linux busybox-static lksctp-tools
UDP_PACKAGES    := dnsmasq-base
HEADER_PACKAGES := haproxy nginx-light postfix
PROMETHEUS_PACKAGES := prometheus
BENCH_PACKAGES  := docker.io haproxy nginx-light libnginx-mod-stream socat redis-server redis-tools wrk postgresql iperf3 \
	systemd

# What compiles the shim for other architectures, by Go's names.
COMPILER_arm64   := gcc-aarch64-linux-gnu libc6-dev-arm64-cross
COMPILER_arm     := gcc-arm-linux-gnueabihf
COMPILER_ppc64le := gcc-powerpc64le-linux-gnu
COMPILER_riscv64 := gcc-riscv64-linux-gnu libc6-dev-riscv64-cross
COMPILER_s390x   := gcc-s390x-linux-gnu

# Tests with dependencies that the program does not have are modules of their own.
UDP_CLIENTS := internal/udp/clients

ROOT := $(filter 0,$(shell id -u))

.PHONY: build install uninstall packages release test-release docs run test unit e2e test-sctp test-udp test-headers test-prometheus check cross \
	bench bench-report bench-smoke bench-seen compare profile bench-sctp bench-publish clean shim-packages cross-packages release-packages \
	e2e-packages sctp-packages udp-packages header-packages prometheus-packages route-packages qemu-packages bench-packages

# Programs in Go: what the shim starts, what that starts for the local bypass, and what people type.
PROGRAMS := portsplice portsplice-bypass portsplicectl
GO_BUILD  = CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X 'main.version=$(VERSION) (commit $(COMMIT))'"

# What dockerd starts is paid for once per port: the shim. The program is static, without cgo and without symbols.
build:
	$(GO_BUILD) -o bin/ $(addprefix ./cmd/,$(PROGRAMS))
	@cmd/portsplice-shim/build bin/portsplice-shim || echo "left out: bin/portsplice-shim"
	@internal/packaging/manual bin/share

# Installs what make build has built, and takes it away again (after "portsplicectl uninstall").
PREFIX ?= /usr/local
install:
	internal/packaging/stage bin bin/share "$(DESTDIR)" $(PREFIX)
uninstall:
	@tree=$$(mktemp -d) && internal/packaging/stage bin bin/share $$tree $(PREFIX) && \
		(cd $$tree && find . ! -type d -printf '%P\0') | (cd $(DESTDIR)/ && xargs -0 rm -fv); rm -r $$tree

# Packages of Debian's and Red Hat's kind, in bin/packages. A version of Debian's begins with a digit, and a release that is to come is
# before it.
PACKAGES_FOR    ?= amd64 arm64
PACKAGE_VERSION := $(shell echo $(VERSION) | sed 's/^v//; s/-rc/~rc/; s/-\([0-9]*\)-g/+\1.g/; s/-dirty/.dirty/; /^[0-9]*\./!s/^/0.0.0+g/')
packages: cross-packages $(TOOLS)/nfpm
	internal/packaging/manual bin/share
	rm -rf bin/packages && mkdir -p bin/packages
	@set -e; for arch in $(PACKAGES_FOR); do \
		$(MAKE) bin/linux/$$arch; \
		rm -rf bin/stage; internal/packaging/stage bin/linux/$$arch bin/share bin/stage /usr; \
		for kind in deb rpm; do \
			ARCH=$$arch PACKAGE_VERSION=$(PACKAGE_VERSION) $(TOOLS)/nfpm package -f internal/packaging/nfpm.yaml -p $$kind -t bin/packages; \
		done; \
	done

# A release of the version that the tag names, in bin/release: tarballs, to be unpacked by
# "tar -C /usr/local --strip-components 1 -xzf", checksums, and what the programs are made of (SBOM).
RELEASE_FOR ?= amd64 arm64 arm ppc64le riscv64 s390x
release: release-packages $(TOOLS)/cyclonedx-gomod
	internal/packaging/manual bin/share
	@set -e; for arch in $(RELEASE_FOR); do $(MAKE) bin/linux/$$arch; done
	internal/packaging/release bin/release $(VERSION) "$(TOOLS)/cyclonedx-gomod" $(RELEASE_FOR)

# Whether two builds are the same, in directories of different names, and whether what is released is whole and starts: of other
# architectures, too, by qemu. CI does so for one.
test-release: $(TOOLS)/nfpm $(TOOLS)/cyclonedx-gomod qemu-packages
	internal/packaging/reproduce release packages RELEASE_FOR="$(RELEASE_FOR)" PACKAGES_FOR="$(PACKAGES_FOR)"

# The programs for Linux on another architecture. The shim is left out where it has no compiler.
bin/linux/%: .FORCE
	rm -rf $@ && mkdir -p $@
	GOOS=linux GOARCH=$* GOARM=7 $(GO_BUILD) -o $@/ $(addprefix ./cmd/,$(PROGRAMS))
	@[ -d bin/musl/$* ] || cmd/portsplice-shim/musl $* bin/musl/$* || echo "no musl for $*"
	@cmd/portsplice-shim/build $@/portsplice-shim $* bin/musl/$* || echo "left out: $@/portsplice-shim"
.FORCE:
.PRECIOUS: bin/linux/%

# The table in docs/options.md, of the flags that there are. A test fails when it is stale.
docs:
	$(GO) generate ./internal/config

# What portsplice does, without docker.
run: build
	$(GO) run ./internal/demo -proxy bin/portsplice

ifneq ($(ROOT),)
test: unit test-udp test-headers test-prometheus test-sctp e2e
else
test: unit
	@echo "left out, because they need root: the tests of internal/udp that make network namespaces,"
	@echo "make test-udp (installs a DNS server), make test-headers (installs web and mail servers),"
	@echo "make test-prometheus (installs it), make test-sctp (installs a kernel),"
	@echo "make e2e (installs and starts dockerd)"
endif

unit: $(if $(ROOT),shim-packages route-packages)
	$(GO) test -race -count=1 -timeout 20m ./...

# A real dockerd, in a network namespace of its own, with our program as its proxy; and the package, installed over one.
e2e: shim-packages build packages e2e-packages route-packages $(TOOLS)/rootlesskit
	$(GO) test -tags e2e -count=1 -timeout 10m ./internal/e2e -args -proxy $(CURDIR)/bin/portsplice-shim
	$(GO) test -tags e2e -count=1 -timeout 10m -run 'WalkThrough|KilledDaemon' ./internal/e2e \
		-args -proxy $(CURDIR)/bin/portsplice

# Programs that people run, a DNS server and QUIC, through the proxy.
test-udp: build udp-packages
	$(GO) -C $(UDP_CLIENTS) test -race -count=1 ./... -args -proxy $(CURDIR)/bin/portsplice

# Servers that people run are told who their clients are, and log them.
test-headers: build header-packages
	$(GO) test -race -tags header_backends -count=1 ./internal/proxyheader/backends -args -proxy $(CURDIR)/bin/portsplice

# The metrics, alert rules and dashboard, with Debian's Prometheus.
test-prometheus: shim-packages build prometheus-packages
	$(GO) test -tags prometheus -count=1 -run 'TestRules|TestPrometheus' ./internal/exporter -args -programs $(CURDIR)/bin

# What a look at a thousand ports takes: portsplicectl ps, and a scrape of its exporter.
bench-seen: shim-packages build
	$(GO) test -tags prometheus -run '^$$' -bench Ports -benchtime 20x ./internal/exporter -args -programs $(CURDIR)/bin
	$(GO) test -tags prometheus -run '^$$' -bench Exchange -benchtime 3s -count 3 ./internal/exporter -args -programs $(CURDIR)/bin

# SCTP, on a kernel that has it, by the program and by the shim.
test-sctp: shim-packages build sctp-packages
	CGO_ENABLED=0 $(GO) test -c -tags sctp_kernel -o bin/sctp.test ./internal/sctp
	internal/sctp/uml/run bin/sctp.test -test.v -program $(CURDIR)/bin/portsplice

shim-packages: PACKAGES = $(SHIM_PACKAGES)
route-packages: PACKAGES = $(ROUTE_PACKAGES)
cross-packages: PACKAGES = $(SHIM_PACKAGES) $(foreach arch,$(PACKAGES_FOR),$(COMPILER_$(arch)))
release-packages: PACKAGES = $(SHIM_PACKAGES) $(foreach arch,$(RELEASE_FOR),$(COMPILER_$(arch)))
e2e-packages: PACKAGES = $(E2E_PACKAGES)
sctp-packages: PACKAGES = $(SCTP_PACKAGES)
udp-packages: PACKAGES = $(UDP_PACKAGES)
header-packages: PACKAGES = $(HEADER_PACKAGES)
prometheus-packages: PACKAGES = $(PROMETHEUS_PACKAGES)
qemu-packages: PACKAGES = $(if $(filter-out amd64,$(RELEASE_FOR)),qemu-user-static,$(SHIM_PACKAGES))
bench-packages: PACKAGES = $(BENCH_PACKAGES)
bench-packages: $(TOOLS)/docker-proxy
shim-packages cross-packages release-packages e2e-packages sctp-packages udp-packages header-packages prometheus-packages \
	route-packages qemu-packages bench-packages:
	@dpkg -s $(PACKAGES) >/dev/null 2>&1 || { \
		apt-get update && \
		DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $(PACKAGES); }

check: $(TOOLS)/staticcheck $(TOOLS)/golangci-lint cross
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt would change: $$unformatted"; exit 1; }
	$(GO) vet -tags e2e,sctp_kernel,header_backends,manual,prometheus,release ./...
	$(TOOLS)/staticcheck -tags e2e,sctp_kernel,header_backends,manual,prometheus,release ./...
	$(TOOLS)/golangci-lint run ./...
	$(GO) mod tidy -diff
	cd $(UDP_CLIENTS) && $(GO) vet ./... && $(TOOLS)/staticcheck ./... && $(TOOLS)/golangci-lint run ./...
	$(GO) -C $(UDP_CLIENTS) mod tidy -diff

# Programs and test binaries for the other systems, where there is the fallback only; and what differs on Linux where an
# int has 32 bits, or signals are left to Go.
cross:
	@set -e; for target in linux/arm64 darwin/arm64 freebsd/amd64 windows/amd64; do \
		echo "cross-compile $$target"; \
		export CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/}; \
		$(GO) build -o /dev/null ./cmd/portsplice; \
		$(GO) vet ./...; \
		$(GO) test -exec true ./... >/dev/null; \
	done; \
	for arch in 386 arm mips; do \
		echo "vet linux/$$arch"; \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) vet ./cmd/portsplice; \
	done

# Where we stand: every measurement once.
bench: bench-packages
	$(GO) run ./bench ratios -rounds 1 -time 800ms

# The same in rounds that alternate, published: SET=quick takes presumably eight minutes, SET=full two and a half hours, with
# rows of ours that have one event loop and two. What fails is left out of the report, and said at the end. Streams of datagrams
# are not in quick: nginx may be silent for half a second in them.
SET     ?= quick
RESULTS := bench/results/$(shell date +%F)-$(shell uname -r | cut -d- -f1)
QUICK   := -time 250ms -work pingpong/size=64/conns=1,pingpong/size=64/conns=64,pingpong/size=16384/conns=64,pingpong-ports/size=64/ports=200,crr,bulk/direction=down/conns=8,bulk/direction=up/conns=1,message-beside/streams=8,idle/conns=2000,start,local-pingpong/size=64/conns=64,udp-echo/size=200/conns=64,udp-oneshot
bench-report: OUT = $(RESULTS)$(if $(filter quick,$(SET)),-quick)
bench-report: bench-packages
	$(if $(filter quick full,$(SET)),,$(error SET=$(SET): there are quick and full))
	@status=0; set -x; \
	$(GO) run ./bench ratios $(if $(filter quick,$(SET)),-rounds 2 $(QUICK),-loops 1,2) -out $(OUT) || status=$$?; \
	$(GO) run ./bench report $(if $(filter full,$(SET)),-readme README.md) $(OUT) && exit $$status

# What CI runs: no thresholds, but every proxy has a figure for every work. It takes five and a half minutes there, with all else.
bench-smoke: bench-packages
	$(GO) run ./bench ratios -rounds 1 $(QUICK) -strict

# Where the time goes, for ours and for docker-proxy: make profile WORK=crr
profile: WORK ?= pingpong/size=64/conns=64
profile: $(TOOLS)/docker-proxy
	$(GO) run ./bench profile -work $(WORK) -out bin/profile

# Two builds of ours: make compare OLD=bin/before NEW=bin/portsplice WORK=pingpong,crr
compare: $(TOOLS)/benchstat
	PATH=$(TOOLS):$$PATH $(GO) run ./bench compare $(if $(WORK),-work $(WORK)) $(OLD) $(NEW)

# What a published port costs under a real dockerd, against docker-proxy. benchstat -col /proxy reads it.
bench-publish: shim-packages build e2e-packages
	$(GO) test -tags e2e -run '^$$' -bench Publish -benchtime 1x -count 4 ./internal/e2e -args -proxy $(CURDIR)/bin/portsplice-shim

# SCTP against docker-proxy, on a kernel that has it. It takes ten minutes: BENCH_SCTP="-rounds 1 -work NAME" does less.
bench-sctp: build sctp-packages $(TOOLS)/docker-proxy
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/bench ./bench
	UML_SECONDS=1200 internal/sctp/uml/run bin/bench sctp -portsplice $(CURDIR)/bin/portsplice -reference $(TOOLS)/docker-proxy $(BENCH_SCTP)

# Tools are pinned here and are no dependencies of the module.
$(TOOLS)/staticcheck: Makefile
	GOBIN=$(TOOLS) $(GO) install $(STATICCHECK)
	@touch $@
$(TOOLS)/golangci-lint: Makefile
	GOBIN=$(TOOLS) $(GO) install $(GOLANGCI_LINT)
	@touch $@
$(TOOLS)/nfpm: Makefile
	GOBIN=$(TOOLS) $(GO) install $(NFPM)
	@touch $@
$(TOOLS)/cyclonedx-gomod: Makefile
	GOBIN="$(TOOLS)" $(GO) install $(CYCLONEDX)
	@touch $@
$(TOOLS)/rootlesskit: Makefile
	CGO_ENABLED=0 GOBIN=$(TOOLS) $(GO) install $(ROOTLESSKIT)
	@touch $@
$(TOOLS)/docker-proxy: Makefile
	CGO_ENABLED=0 GOBIN=$(TOOLS) $(GO) install $(DOCKER_PROXY)
	@touch $@
$(TOOLS)/benchstat: Makefile
	GOBIN=$(TOOLS) $(GO) install $(BENCHSTAT)
	@touch $@

clean:
	rm -rf bin
