package console

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"strings"
	"time"
)

//go:embed style.css
var styleSheet []byte

//go:embed script.js
var script []byte

// assets are the two files of the page, by the address that holds their hash: a new
// version has a new address, so that browsers may keep them for ever.
var assets = map[string]asset{
	hashed("style.css", styleSheet): {"text/css; charset=utf-8", styleSheet},
	hashed("script.js", script):     {"text/javascript; charset=utf-8", script},
}

type asset struct {
	kind string
	data []byte
}

func hashed(name string, data []byte) string {
	sum := sha256.Sum256(data)
	base, extension, _ := strings.Cut(name, ".")
	return base + "-" + hex.EncodeToString(sum[:6]) + "." + extension
}

func assetPath(name string) string {
	data := styleSheet
	if name == "script.js" {
		data = script
	}
	return "/assets/" + hashed(name, data)
}

func serveAsset(w http.ResponseWriter, r *http.Request) {
	found, ok := assets[r.PathValue("file")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", found.kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(found.data))
}
