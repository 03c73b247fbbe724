package credstest

import (
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/chromedp/chromedp"
)

func TestBrowser(t *testing.T) {
	page := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<h1>` + r.URL.Query().Get("q") + `</h1><form><input name="q"><button>Go</button></form>`))
	}))
	defer page.Close()
	ctx, ok := Browser(t, 800, 600)
	if !ok {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no chromium")
		}
		t.Skip("there is no chromium")
	}
	err := chromedp.Do(ctx, chromedp.Navigate(page.URL), chromedp.SendKeys(chromedp.CSS("input"), "hello"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS("button"))); err != nil {
		t.Fatal(err)
	}
	title, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS("h1")))
	if err != nil || title != "hello" {
		t.Fatalf("the page says %q, %v", title, err)
	}
}
