package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/portsplice/portsplice/internal/install"
)

// installCommand is the command that has dockerd start portsplice.
func installCommand() *cobra.Command {
	var h install.Host
	c := planned(&h, func(c *cobra.Command) (install.Plan, error) {
		if err := h.FindVersion(c.Context()); err != nil {
			return install.Plan{}, err
		}
		if err := h.FindProgram(); err != nil {
			return install.Plan{}, err
		}
		return h.Install()
	})
	c.Use = "install"
	c.Short = "Have dockerd start portsplice for the ports that it publishes"
	c.Long = `Have dockerd start portsplice for the ports that it publishes, from its next
restart on. Docker 27 and later find it by a link named docker-proxy in
/usr/local/libexec/docker. Older ones, and rootless ones, are told by
"userland-proxy-path" in daemon.json, of which all else stays as it is; a copy of
what it was is beside it.

What is not understood is refused, and nothing changes: a proxy that somebody else
has chosen, "userland-proxy": false, a file that is not JSON. Installing twice does
nothing. dockerd is not restarted.`
	c.Flags().Lookup("program").Usage = "`path` of what dockerd is to start (default: portsplice-shim as it came with portsplicectl)"
	c.Flags().StringVar(&h.Version, "docker", "", "`version` of Docker (default: what \"dockerd --version\" says)")
	return c
}

// uninstallCommand is the command that takes it back.
func uninstallCommand() *cobra.Command {
	var h install.Host
	c := planned(&h, func(*cobra.Command) (install.Plan, error) { return h.Uninstall() })
	c.Use = "uninstall"
	c.Short = "Have dockerd start the proxy that it would start without portsplice"
	c.Long = `Have dockerd start the proxy that it would start without portsplice, from its next
restart on: takes back what "portsplicectl install" did, and what one that was cut
short has left. A daemon.json that was not changed since is what it was before, to
the byte. What is not of portsplice is left alone. dockerd is not restarted.`
	return c
}

// planned is a command that makes a plan for a host, and carries it out unless it is to be shown only.
func planned(h *install.Host, plan func(*cobra.Command) (install.Plan, error)) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := h.Find(); err != nil {
				return err
			}
			p, err := plan(c)
			if err != nil {
				return err
			}
			say := func(words string) { _, _ = fmt.Fprintln(c.OutOrStdout(), words) } // who does not listen changes nothing
			if dryRun {
				for _, step := range p.Steps {
					say("would " + step.Say)
				}
			} else if err := p.Do(say); err != nil {
				return err
			}
			say(p.Next)
			return nil
		},
	}
	c.Flags().StringVar(&h.Program, "program", "", "`path`: only where dockerd is to start this, or another program beside it")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done, and do nothing")
	c.Flags().StringVar(&h.Root, "root", "", "work on the tree in this `directory`, as a packager does, and ask nothing of this machine")
	c.Flags().StringVar(&h.Config, "config", "", "`path` of daemon.json (default /etc/docker/daemon.json, or the user's own of a rootless dockerd)")
	return c
}
