package token

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

// toProvider is a transport that reaches the provider under any host name, whose
// address a preset has made.
func toProvider(t *testing.T, provider *credstest.Provider) *http.Transport {
	t.Helper()
	own, err := url.Parse(provider.URL())
	if err != nil {
		t.Fatal(err)
	}
	transport := provider.Transport()
	transport.TLSClientConfig.ServerName = own.Hostname()
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, own.Host)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func recorded(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "answers", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestPresets: what is made of a preset, an instance URL and what a person gives: the
// request to the tool's token endpoint, what its documented answer becomes, and what
// its refusal is sorted as.
func TestPresets(t *testing.T) {
	client := func(c *creds.Credential) { c.ClientID, c.ClientSecret = "client", creds.NewSecret("client-secret") }
	user := func(c *creds.Credential) { c.Username, c.Password = "integration", creds.NewSecret("p&ss") }
	refresh := proof{refresh: creds.NewSecret("old")}
	code := proof{code: creds.NewSecret("the-code"), verifier: creds.NewSecret("the-verifier"), redirectURL: "https://console.example/cb"}
	const basicClient = "Basic Y2xpZW50OmNsaWVudC1zZWNyZXQ="
	for _, row := range []struct {
		preset, url string
		kind        creds.AuthorizationType // "" is the preset's own
		give        func(*creds.Credential)
		proof       proof

		askedURL, authorization string
		form                    url.Values // "" of a key that must not be there
		body                    string     // in place of form

		answer, contentType string
		header              string // Name: prefix before the token
		lifetime            time.Duration
		refresh             bool // a next refresh token comes

		refusal string
		status  int
		reason  string
	}{
		{preset: "servicenow", url: "https://example.service-now.com/", give: client,
			askedURL: "https://example.service-now.com/oauth_token.do",
			form:     url.Values{"grant_type": {"client_credentials"}, "client_id": {"client"}, "client_secret": {"client-secret"}},
			answer:   "servicenow-token.json", header: "Authorization: Bearer ", lifetime: 1799 * time.Second, refresh: true,
			refusal: "servicenow-refused.json", status: 401, reason: ReasonInvalidClient},
		{preset: "servicenow", url: "https://example.service-now.com/", kind: creds.AuthorizationCode, give: client, proof: code,
			askedURL: "https://example.service-now.com/oauth_token.do",
			form: url.Values{"grant_type": {"authorization_code"}, "client_id": {"client"}, "client_secret": {"client-secret"},
				"code": {"the-code"}, "code_verifier": {"the-verifier"}, "redirect_uri": {"https://console.example/cb"}},
			answer: "servicenow-token.json", header: "Authorization: Bearer ", lifetime: 1799 * time.Second, refresh: true,
			refusal: "servicenow-refused.json", status: 401, reason: ReasonInvalidClient},
		{preset: "servicenow", url: "https://example.service-now.com/", kind: creds.PasswordGrant, give: func(c *creds.Credential) { client(c); user(c) },
			askedURL: "https://example.service-now.com/oauth_token.do",
			form: url.Values{"grant_type": {"password"}, "client_id": {"client"}, "client_secret": {"client-secret"},
				"username": {"integration"}, "password": {"p&ss"}},
			answer: "servicenow-token.json", header: "Authorization: Bearer ", lifetime: 1799 * time.Second, refresh: true,
			refusal: "servicenow-refused.json", status: 401, reason: ReasonInvalidClient},
		{preset: "jira", url: "https://api.atlassian.com/ex/jira/0000/", give: client, proof: refresh,
			askedURL: "https://auth.atlassian.com/oauth/token",
			form:     url.Values{"grant_type": {"refresh_token"}, "client_id": {"client"}, "client_secret": {"client-secret"}, "refresh_token": {"old"}},
			answer:   "jira-token.json", header: "Authorization: Bearer ", lifetime: time.Hour, refresh: true,
			refusal: "jira-refused.json", status: 403, reason: ReasonInvalidGrant},
		{preset: "jira", url: "https://jira.example:8443/jira/", give: client, proof: refresh,
			askedURL: "https://jira.example:8443/jira/rest/oauth2/latest/token",
			form:     url.Values{"grant_type": {"refresh_token"}, "client_id": {"client"}, "client_secret": {"client-secret"}, "refresh_token": {"old"}},
			answer:   "jira-datacenter-token.json", header: "Authorization: Bearer ", lifetime: 2 * time.Hour, refresh: true,
			refusal: "jira-refused.json", status: 400, reason: ReasonInvalidGrant},
		{preset: "bmc", url: "https://example-restapi.onbmc.com/", give: user,
			askedURL: "https://example-restapi.onbmc.com/api/jwt/login",
			form:     url.Values{"username": {"integration"}, "password": {"p&ss"}},
			answer:   "bmc-token.txt", contentType: "text/plain;charset=UTF-8", header: "Authorization: AR-JWT ", lifetime: time.Hour,
			refusal: "bmc-refused.json", status: 401, reason: ReasonInvalidGrant},
		{preset: "cherwell", url: "https://example.cherwellondemand.com/", give: func(c *creds.Credential) { user(c); c.ClientID = "9c2e6f0a" },
			askedURL: "https://example.cherwellondemand.com/CherwellAPI/token",
			form:     url.Values{"grant_type": {"password"}, "client_id": {"9c2e6f0a"}, "username": {"integration"}, "password": {"p&ss"}},
			answer:   "cherwell-token.json", header: "Authorization: Bearer ", lifetime: 1199 * time.Second, refresh: true,
			refusal: "cherwell-refused.json", status: 400, reason: ReasonInvalidGrant},
		{preset: "ivanti", url: "https://itsm.example/HEAT/", kind: creds.Login, give: func(c *creds.Credential) { user(c); c.Params = map[string]string{"role": "Admin"} },
			askedURL: "https://itsm.example/HEAT/api/rest/authentication/login",
			body:     `{"password":"p&ss","role":"Admin","tenant":"itsm.example","username":"integration"}`,
			answer:   "ivanti-token.json", header: "Authorization: ", lifetime: 30 * time.Minute,
			refusal: "ivanti-refused.json", status: 400, reason: ReasonInvalidGrant},
		{preset: "freshservice", url: "https://example.freshservice.com/", kind: creds.AuthorizationCode, proof: refresh,
			give: func(c *creds.Credential) {
				client(c)
				c.AccessTokenURL, c.AuthorizationURL = "https://example-org.myfreshworks.com/org/oauth/v2/token", "https://example-org.myfreshworks.com/org/oauth/v2/authorize"
			},
			askedURL: "https://example-org.myfreshworks.com/org/oauth/v2/token", authorization: basicClient,
			form:   url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"old"}},
			answer: "freshservice-token.json", header: "Authorization: Bearer ", lifetime: 1799 * time.Second, refresh: true,
			refusal: "freshservice-refused.json", status: 401, reason: ReasonInvalidClient},
		{preset: "4me", url: "https://api.us.4me.com/", give: client,
			askedURL: "https://oauth.us.4me.com/token",
			form:     url.Values{"grant_type": {"client_credentials"}, "client_id": {"client"}, "client_secret": {"client-secret"}},
			answer:   "4me-token.json", header: "Authorization: Bearer ", lifetime: time.Hour,
			refusal: "4me-refused.json", status: 400, reason: ReasonInvalidClient},
	} {
		t.Run(row.preset+" "+string(row.kind), func(t *testing.T) {
			provider := credstest.NewProvider(t)
			c := &creds.Credential{Name: row.preset, Protocol: creds.HTTPS, URL: row.url, Authorization: row.kind}
			row.give(c)
			preset, err := creds.FindPreset(row.preset)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := preset.Apply(c); err != nil {
				t.Fatal(err)
			}
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
			if c.AccessTokenURL != row.askedURL {
				t.Errorf("asks %s", c.AccessTokenURL)
			}
			ask := kinds[c.Authorization].grant(c, endpoint{http: toProvider(t, provider), now: time.Now})

			// what it sends, and what the answer becomes
			var body string
			contentType := row.contentType
			if contentType == "" {
				contentType = "application/json"
			}
			text := recorded(t, row.answer)
			provider.Answer(func(w http.ResponseWriter, r *http.Request) {
				data := make([]byte, 1000)
				n, _ := r.Body.Read(data)
				body = string(data[:n])
				credstest.Reply(200, contentType, text)(w, r)
			})
			got, err := ask(t.Context(), row.proof)
			if err != nil {
				t.Fatal(asFailure(err).words())
			}
			request := provider.Requests()[0]
			if asked, _ := url.Parse(row.askedURL); request.Path != asked.Path || request.Method != "POST" {
				t.Errorf("%s %s", request.Method, request.Path)
			}
			if row.body != "" && (body != row.body || request.Header.Get("Content-Type") != "application/json") {
				t.Errorf("body %s", body)
			}
			if row.body == "" && !reflect.DeepEqual(request.Form, row.form) {
				t.Errorf("form %v, want %v", request.Form, row.form)
			}
			if request.Header.Get("Authorization") != row.authorization {
				t.Errorf("Authorization %q", request.Header.Get("Authorization"))
			}
			if got.lifetime != row.lifetime || got.refresh.IsZero() == row.refresh {
				t.Errorf("lives %s, refresh token %t", got.lifetime, !got.refresh.IsZero())
			}
			name, prefix, _ := strings.Cut(row.header, ": ")
			if carried := tokenField(c, got.token); value(&carried, name) != prefix+got.token.Reveal() || !strings.Contains(text, got.token.Reveal()) {
				t.Errorf("requests carry %q", value(&carried, name))
			}

			// what its refusal is
			provider.Answer(credstest.Reply(row.status, "application/json", recorded(t, row.refusal)))
			_, err = ask(t.Context(), row.proof)
			var refused *failure
			if !errors.As(err, &refused) || refused.reason != row.reason || !refused.final() || refused.unknown {
				t.Errorf("refused: %+v", refused)
			}
		})
	}
}

// TestPresetsOfStaticTypes: what requests carry where no token is asked for.
func TestPresetsOfStaticTypes(t *testing.T) {
	for _, row := range []struct {
		preset, url string
		kind        creds.AuthorizationType
		want        string
	}{
		{"servicenow", "https://example.service-now.com/", creds.Basic, "Basic dTpw"},
		{"jira", "https://example.atlassian.net/", "", "Basic dTpw"},
		{"jira", "https://jira.example/", creds.Bearer, "Bearer secret-token"},
		{"ivanti", "https://example.ivanticloud.com/", "", "rest_api_key=secret-token"},
		{"freshservice", "https://example.freshservice.com/", "", "Basic secret-token"},
		{"4me", "https://api.4me.com/", creds.Bearer, "Bearer secret-token"},
	} {
		c := &creds.Credential{Name: row.preset, Protocol: creds.HTTPS, URL: row.url, Authorization: row.kind}
		preset, _ := creds.FindPreset(row.preset)
		if _, err := preset.Apply(c); err != nil {
			t.Error(err)
			continue
		}
		if c.Authorization == creds.Basic {
			c.Username, c.Password = "u", creds.NewSecret("p")
		} else {
			c.Token = creds.NewSecret("secret-token")
		}
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
		sent, err := (&Keeper{}).Authorize(t.Context(), c)
		if err != nil || value(sent, "Authorization") != row.want {
			t.Errorf("%s: %v, %v", row.preset, value(sent, "Authorization"), err)
		}
	}
}

// TestPresetConsent: the addresses where a person consents.
func TestPresetConsent(t *testing.T) {
	for instance, want := range map[string]string{
		"servicenow https://example.service-now.com/":  "https://example.service-now.com/oauth_auth.do?client_id=client&",
		"jira https://api.atlassian.com/ex/jira/0000/": "https://auth.atlassian.com/authorize?audience=api.atlassian.com&client_id=client&prompt=consent&scope=read%3Ajira-work+write%3Ajira-work+offline_access&",
		"jira https://jira.example/":                   "https://jira.example/rest/oauth2/latest/authorize?client_id=client&scope=WRITE&",
		"4me https://api.4me.qa/":                      "https://oauth.4me.qa/authorize?client_id=client&",
	} {
		name, instanceURL, _ := strings.Cut(instance, " ")
		c := &creds.Credential{Name: name, Protocol: creds.HTTPS, URL: instanceURL, Authorization: creds.AuthorizationCode, ClientID: "client", ClientSecret: creds.NewSecret("s")}
		preset, _ := creds.FindPreset(name)
		if _, err := preset.Apply(c); err != nil {
			t.Error(err)
			continue
		}
		pending, err := BeginConsent(c, "https://console.example/cb")
		if err != nil || c.Validate() != nil {
			t.Errorf("%v, %v", err, c.Validate())
			continue
		}
		u, _ := url.Parse(pending.URL)
		query := u.Query()
		for _, common := range []string{"code_challenge", "code_challenge_method", "redirect_uri", "response_type", "state"} {
			if query.Get(common) == "" {
				t.Errorf("%s: no %s", instance, common)
			}
			query.Del(common)
		}
		u.RawQuery = query.Encode()
		if u.String()+"&" != want {
			t.Errorf("%s: %s", instance, u)
		}
	}
}
