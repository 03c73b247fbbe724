package proxy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestAttackPage keeps docs/attacks.md in step with the tests: each that a row
// names is there and has a sub-test of the row's number, and each numbered
// sub-test of the tree is on the page.
func TestAttackPage(t *testing.T) {
	page := readAttackPage(t)
	tree := numberedTests(t, "..")
	for number, tests := range page {
		for _, test := range tests {
			if !slices.Contains(tree[number], test) {
				t.Errorf("docs/attacks.md: case %s names %s, which has no sub-test of that number", number, test)
			}
		}
	}
	for number, tests := range tree {
		for _, test := range tests {
			if !slices.Contains(page[number], test) {
				t.Errorf("docs/attacks.md: case %s does not name %s", number, test)
			}
		}
	}
	if len(page) < 40 {
		t.Errorf("docs/attacks.md has only %d cases", len(page))
	}
}

var (
	pageRow   = regexp.MustCompile(`^\| (\d+[a-z]?) \|(.*)\|$`)
	pageTest  = regexp.MustCompile("`([a-z/]+\\.Test\\w+)`")
	caseStart = regexp.MustCompile(`^(\d{1,2}[a-z]?) `)
)

// readAttackPage returns the tests that each case names, as package.Test.
func readAttackPage(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../docs/attacks.md")
	if err != nil {
		t.Fatal(err)
	}
	page := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		row := pageRow.FindStringSubmatch(strings.TrimSpace(line))
		if row == nil {
			continue
		}
		if page[row[1]] != nil {
			t.Errorf("docs/attacks.md: case %s stands twice", row[1])
		}
		for _, test := range pageTest.FindAllStringSubmatch(row[2], -1) {
			page[row[1]] = append(page[row[1]], test[1])
		}
		if page[row[1]] == nil {
			t.Errorf("docs/attacks.md: case %s names no test", row[1])
		}
	}
	return page
}

// numberedTests finds sub-tests whose name begins with a case's number: in the
// first argument of Run, and in the rows of tables.
func numberedTests(t *testing.T, root string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "testdata" || strings.HasPrefix(entry.Name(), ".git") || entry.Name() == "bench"):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		place, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for number, test := range numberedIn(file) {
			name := filepath.ToSlash(place) + "." + test
			if !slices.Contains(found[number], name) {
				found[number] = append(found[number], name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// numberedIn yields the number and the test of each numbered string of a file.
func numberedIn(file *ast.File) func(func(number, test string) bool) {
	return func(yield func(number, test string) bool) {
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(f.Name.Name, "Test") {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				for _, name := range names(n) {
					if m := caseStart.FindStringSubmatch(name); m != nil && !yield(m[1], f.Name.Name) {
						return false
					}
				}
				return true
			})
		}
	}
}

// names are the names that a node gives to sub-tests.
func names(n ast.Node) []string {
	switch n := n.(type) {
	case *ast.CallExpr:
		if called, ok := n.Fun.(*ast.SelectorExpr); ok && called.Sel.Name == "Run" && len(n.Args) == 2 {
			return leading(n.Args[0])
		}
	case *ast.CompositeLit:
		if len(n.Elts) == 0 {
			return nil
		}
		var all []string
		for i, element := range n.Elts {
			pair, keyed := element.(*ast.KeyValueExpr)
			if !keyed {
				if i == 0 {
					all = append(all, leading(element)...)
				}
				continue
			}
			if key, ok := pair.Key.(*ast.Ident); !ok {
				all = append(all, leading(pair.Key)...)
			} else if key.Name == "name" {
				all = append(all, leading(pair.Value)...)
			}
		}
		return all
	}
	return nil
}

// leading is the string literal that an expression begins with.
func leading(e ast.Expr) []string {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return leading(e.X)
	case *ast.CallExpr:
		if len(e.Args) > 0 { // fmt.Sprintf
			return leading(e.Args[0])
		}
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
			return []string{text}
		}
	}
	return nil
}
