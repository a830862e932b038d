//go:build manual

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// The build for packages can write what is installed beside the programs. Others do without what that takes.
func init() { extra = append(extra, manual()) }

// optionsPage is the page of which the file's man page is made; the command runs at the root of the repository.
const optionsPage = "docs/options.md"

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
				write("man/man5/portsplice.json.5", func(path string) error {
					page, err := os.ReadFile(optionsPage)
					return errors.Join(err, os.WriteFile(path, md2man.Render(fileManual(page)), 0o644))
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

// optionRow is one of the table of options.
var optionRow = regexp.MustCompile("(?m)^\\| (`.*`) \\| (.*) \\| (.*) \\| (.*) \\| (.*) \\| (.*) \\|$\n")

// fileManual makes a man page's sections of the page: its table, which is wider than a terminal, becomes paragraphs.
func fileManual(page []byte) []byte {
	_, page, _ = bytes.Cut(page, []byte("\n")) // after its title
	page = optionRow.ReplaceAll(page, []byte("**$1** ($2)\n\n> $6. Default: $3. Of: $4. On reload: $5.\n\n"))
	page = regexp.MustCompile("(?m)^(\\||<!--).*\n").ReplaceAll(page, nil)
	return slices.Concat([]byte("# portsplice.json 5 \"\" portsplice\n\n## NAME\n\nportsplice.json - options of portsplice\n\n## DESCRIPTION\n"),
		page, []byte("\n## SEE ALSO\n\n**portsplice**(8), **portsplicectl**(1)\n"))
}
