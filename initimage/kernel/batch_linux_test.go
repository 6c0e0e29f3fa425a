package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"golang.org/x/tools/txtar"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// inNamespace runs a test in a network namespace of its own.
func inNamespace(t *testing.T, test func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread is in a namespace of its own
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		test()
	}()
	if err := <-done; errors.Is(err, unix.EPERM) {
		t.Skip("needs root, to make a network namespace")
	} else if err != nil {
		t.Fatal(err)
	}
}

// tablesOf returns the tables of both families.
func tablesOf(t *testing.T, args ...string) []nft.Table {
	t.Helper()
	spec, _, err := interception.ParseArgs(args)
	if err != nil {
		t.Fatal(err)
	}
	var tables []nft.Table
	for _, rs := range both(spec) {
		table, err := nft.Compile(rs)
		if err != nil {
			t.Fatal(err)
		}
		tables = append(tables, table)
	}
	return tables
}

// prefixSet returns a table's set of prefixes whose name begins with that of a chain.
func prefixSet(t *testing.T, table nft.Table, name string) *nft.Set {
	t.Helper()
	for i, s := range table.Sets {
		if strings.HasPrefix(s.Name, name) && s.Prefixes != nil {
			return &table.Sets[i]
		}
	}
	t.Fatalf("no set of prefixes for %s", name)
	return nil
}

func mustBatch(t *testing.T, there []ruleset.Family, tables []nft.Table) *batch {
	t.Helper()
	b, err := replaceTables(there, tables)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBatchIsTakenWholeOrNot breaks a transaction in its middle, at the end of a list and in an
// expression. The kernel must change nothing, and the error name what it is about.
func TestBatchIsTakenWholeOrNot(t *testing.T) {
	inNamespace(t, func() {
		if err := mustBatch(t, nil, tablesOf(t, "-m", "REDIRECT")).commit(); err != nil {
			t.Error(err)
			return
		}
		before, err := nftGeneration()
		if err != nil {
			t.Error(err)
		}
		overlap := tablesOf(t, "-m", "TPROXY", "-x", "10.0.0.0/8,11.0.0.0/8,fd00::/16,fd01::/16")
		list := prefixSet(t, overlap[1], "nat_shunt_outbound")
		list.Prefixes[1] = netip.MustParsePrefix("fd00:1::/32")
		late := tablesOf(t, "-m", "TPROXY")
		unknown := mustBatch(t, ruleset.Families, late)
		unknown.data = bytes.Replace(unknown.data, []byte("tproxy\x00"), []byte("tpruxy\x00"), 1)
		tooLate := mustBatch(t, ruleset.Families, late)
		tooLate.add("deleting what is not there", unix.NFT_MSG_DELTABLE, unix.AF_INET, 0)
		tooLate.text(unix.NFTA_TABLE_NAME, "no-such-table")
		for name, test := range map[string]struct {
			batch *batch
			errno unix.Errno
			want  []string
		}{
			"elements that overlap": {
				mustBatch(t, ruleset.Families, overlap), unix.EEXIST, []string{"elements of set " + list.Name, "IPv6"},
			},
			"no such expression": {
				unknown, unix.ENOENT, []string{"to the inbound listener", "mangle_SHUNT_TPROXY", "IPv4", "expression tproxy"},
			},
			"the last message": {tooLate, unix.ENOENT, []string{"deleting what is not there"}},
		} {
			for _, run := range []func() error{test.batch.try, test.batch.commit} {
				err := run()
				if !errors.Is(err, test.errno) {
					t.Errorf("%s: error %v, want %v", name, err, test.errno)
					continue
				}
				for _, want := range test.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%s: %q is not in: %v", name, want, err)
					}
				}
			}
		}
		if after, err := nftGeneration(); err != nil || after != before {
			t.Errorf("nf_tables changed: generation %d, before %d, %v", after, before, err)
		}
	})
}

// TestTryChangesNothing tries a transaction and then carries it out.
func TestTryChangesNothing(t *testing.T) {
	inNamespace(t, func() {
		b := mustBatch(t, nil, tablesOf(t, "-m", "TPROXY", "--redirect-dns", "--capture-all-dns"))
		for range 2 {
			if err := b.try(); err != nil {
				t.Error(err)
			}
		}
		if generation, err := nftGeneration(); err != nil || generation > 1 {
			t.Errorf("nf_tables changed: generation %d, %v", generation, err)
		}
		if err := b.commit(); err != nil {
			t.Error(err)
		}
		if err := b.try(); err == nil {
			t.Error("a second table of the same name can be made; rules would be there twice")
		}
		if err := mustBatch(t, ruleset.Families, nil).commit(); err != nil {
			t.Error(err)
		}
		if err := mustBatch(t, ruleset.Families, nil).commit(); !errors.Is(err, unix.ENOENT) {
			t.Errorf("deleting tables that are gone: %v", err)
		}
	})
}

// TestBatchOfLongLists writes lists that do not fit in one message.
func TestBatchOfLongLists(t *testing.T) {
	inNamespace(t, func() {
		var prefixes []string
		for i := range 20000 {
			prefixes = append(prefixes, fmt.Sprintf("10.%d.%d.0/25,fd00:%x:%x::/64", i/200, i%200, i/200, i%200))
		}
		tables := tablesOf(t, "-m", "REDIRECT", "-x", strings.Join(prefixes, ","))
		if n := len(prefixSet(t, tables[1], "nat_shunt_outbound").Prefixes); n != 20000 {
			t.Errorf("the set has %d prefixes", n)
		}
		if err := mustBatch(t, nil, tables).commit(); err != nil {
			t.Error(err)
		}
	})
}

// TestSampleNeedsTheSame compares what the samples need of a kernel with what whole tables do, for
// each rule case: expressions, with the property that they read or write, and types of chains and
// sets.
func TestSampleNeedsTheSame(t *testing.T) {
	cases, err := filepath.Glob("../../test/rules/testdata/cases/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	compared := 0
	for _, path := range cases {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, section := range archive.Files {
			if section.Name != "args" {
				continue
			}
			args := strings.Fields(strings.ReplaceAll(string(section.Data), "''", "\x00"))
			for i := range args {
				args[i] = strings.Trim(args[i], "\x00'")
			}
			if _, _, err := interception.ParseArgs(args); err != nil {
				continue // a case of bad arguments
			}
			compared++
			for _, table := range tablesOf(t, args...) {
				whole, small := mustBatch(t, nil, []nft.Table{table}), mustBatch(t, nil, []nft.Table{sample(table)})
				if diff := cmp.Diff(needs(whole), needs(small)); diff != "" {
					t.Errorf("%s, %s (-table +sample):\n%s", filepath.Base(path), table.Family, diff)
				}
				if n := len(small.parts); n > 45 {
					t.Errorf("%s, %s: the sample takes %d messages of %d", filepath.Base(path), table.Family, n, len(whole.parts))
				}
			}
		}
	}
	if compared < len(cases)/2 {
		t.Errorf("only %d of %d cases were compared", compared, len(cases))
	}
}

// needs returns what a transaction needs of a kernel.
func needs(b *batch) map[string]bool {
	all := map[string]bool{}
	for i, p := range b.parts {
		message := b.data[p.start:]
		if i+1 < len(b.parts) {
			message = b.data[p.start:b.parts[i+1].start]
		}
		attrs := attributes(message[unix.SizeofNlMsghdr+4:])
		switch kind := binary.NativeEndian.Uint16(message[4:]) & 0xff; kind {
		case unix.NFT_MSG_NEWCHAIN:
			all[fmt.Sprintf("chain %q %x", attrs[unix.NFTA_CHAIN_TYPE], attrs[unix.NFTA_CHAIN_HOOK])] = true
		case unix.NFT_MSG_NEWSET:
			all[fmt.Sprintf("set of %x, %x", attrs[unix.NFTA_SET_KEY_TYPE], attrs[unix.NFTA_SET_FLAGS])] = true
		case unix.NFT_MSG_NEWRULE:
			for _, e := range list(attrs[unix.NFTA_RULE_EXPRESSIONS]) {
				name, data := text(attributes(e)[unix.NFTA_EXPR_NAME]), attributes(attributes(e)[unix.NFTA_EXPR_DATA])
				key := []byte{}
				if name == "ct" || name == "meta" {
					key = append(key, data[unix.NFTA_CT_KEY]...)
					key = append(key, byte(min(1, len(data[unix.NFTA_CT_SREG])+len(data[unix.NFTA_META_SREG]))))
				}
				all[fmt.Sprintf("expression %s %x", name, key)] = true
			}
		}
	}
	return all
}
