//go:build manual

package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// The build for packages can write what is installed beside the programs. Others do without what that takes.
func init() { extra = append(extra, manual()) }

// manual is the command that writes man pages and completions to a directory, as they lie below share.
func manual() *cobra.Command {
	return &cobra.Command{
		Use:    "manual DIRECTORY",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			root := c.Root()
			root.DisableAutoGenTag = true
			write := func(path string, to func(string) error) error {
				path = filepath.Join(args[0], path)
				return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), to(path))
			}
			return errors.Join(
				write("man/man1/portsplicectl.1", func(path string) error {
					return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "portsplice"}, filepath.Dir(path))
				}),
				write("bash-completion/completions/portsplicectl", func(path string) error {
					return root.GenBashCompletionFileV2(path, true)
				}),
				write("zsh/site-functions/_portsplicectl", root.GenZshCompletionFile),
				write("fish/vendor_completions.d/portsplicectl.fish", func(path string) error {
					return root.GenFishCompletionFile(path, true)
				}),
			)
		},
	}
}
