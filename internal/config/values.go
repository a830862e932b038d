package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The values of options check themselves, so that an error names what was typed: the flag or the variable.

// oneOf is a flag.Value for an option with a few named values.
type oneOf[T ~string] struct {
	value *T
	known []T
}

func (o oneOf[T]) Set(value string) error {
	if !slices.Contains(o.known, T(value)) {
		return fmt.Errorf("one of %q is known", o.known)
	}
	*o.value = T(value)
	return nil
}

func (o oneOf[T]) String() string {
	if o.value == nil {
		return "" // flag compares with the zero value
	}
	return string(*o.value)
}

// span is a flag.Value for a time of more than zero.
type span struct{ value *time.Duration }

func (s span) Set(value string) error {
	d, err := time.ParseDuration(value)
	switch _, number := strconv.ParseFloat(value, 64); {
	case err == nil && d > 0:
		*s.value = d
		return nil
	case err == nil || number == nil && value[0] == '-':
		return errors.New("must be more than zero")
	case number == nil:
		return fmt.Errorf("the unit is missing: %ss, or ms, m, h", value)
	}
	return errors.New("not a time, such as 500ms, 10s or 2m")
}

func (s span) String() string {
	if s.value == nil {
		return ""
	}
	return s.value.String()
}

// count is a flag.Value for a number that is not negative.
type count struct{ value *int }

func (c count) Set(value string) error {
	n, err := strconv.Atoi(value)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return errors.New("too large")
	case err != nil:
		return errors.New("not a number")
	case n < 0:
		return errors.New("must not be negative")
	}
	*c.value = n
	return nil
}

func (c count) String() string {
	if c.value == nil {
		return ""
	}
	return strconv.Itoa(*c.value)
}

// prefixes is a flag.Value for a list of addresses and prefixes, by commas.
type prefixes struct{ value *[]netip.Prefix }

func (p prefixes) Set(value string) error {
	var list []netip.Prefix
	for text := range strings.SplitSeq(value, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		prefix, err := parsePrefix(text)
		if err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
		list = append(list, prefix)
	}
	*p.value = list
	return nil
}

func (p prefixes) String() string {
	if p.value == nil {
		return ""
	}
	var list []string
	for _, prefix := range *p.value {
		list = append(list, prefix.String())
	}
	return strings.Join(list, ",")
}

// parsePrefix takes an address for the prefix that has nothing else in it.
func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return prefix, errors.New("not an address or a prefix, such as 192.0.2.1 or 2001:db8::/32")
	case prefix != prefix.Masked(): // one of both was meant, and the other trusts more
		return prefix, fmt.Errorf("not a prefix, which is %v, nor an address, which is %v", prefix.Masked(), prefix.Addr())
	case prefix.Addr().Is4In6():
		return prefix, errors.New("clients by IPv4 have IPv4 addresses: write the prefix as one of IPv4")
	}
	return prefix, nil
}
