// Package install makes dockerd start portsplice for the ports that it publishes, and takes that back.
//
// There are two ways, and dockerd's version decides. dockerd looks for its proxy, a program named docker-proxy, in
// /usr/local/libexec/docker before it looks anywhere else (27.0 and later: lookupBinPath in moby's
// daemon/config/config_linux.go), so a link of that name there is enough, and no file is edited. An older one looks in
// PATH alone, and is told by "userland-proxy-path" in its daemon.json. So is a rootless one, whose user cannot write to
// /usr/local; before 28.0 that has a proxy of RootlessKit's there, which must stay, and which ByRootlessKit leads to the shim.
//
// Nothing here restarts dockerd, and nothing changes for it until somebody does. What is not understood is refused with
// the reason, before anything is written: a proxy that somebody else has chosen, or none at all, is left as it is.
package install
