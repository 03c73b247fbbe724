package token

import (
	"errors"
	"strings"
	"testing"

	"pillion/creds"
)

func text(s string) *string { return &s }

var statics = []struct {
	name       string
	credential creds.Credential
	want       []string // "Name: value" and "?name=value"
	described  []string
}{
	{"none", creds.Credential{Authorization: creds.None}, nil, nil},
	{
		"none with an extra header",
		creds.Credential{Authorization: creds.None, Headers: []creds.Header{{Name: "x-account", Value: creds.NewSecret("acme")}}},
		[]string{"X-Account: acme"}, []string{"X-Account: [secret]"},
	},
	{
		"basic",
		creds.Credential{Authorization: creds.Basic, Username: "Aladdin", Password: creds.NewSecret("open sesame")},
		[]string{"Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="}, []string{"Authorization: Basic [secret]"},
	},
	{
		"basic without a password, as Freshservice's API key",
		creds.Credential{Authorization: creds.Basic, Username: "key"},
		[]string{"Authorization: Basic a2V5Og=="}, []string{"Authorization: Basic [secret]"},
	},
	{
		"bearer",
		creds.Credential{Authorization: creds.Bearer, Token: creds.NewSecret("t")},
		[]string{"Authorization: Bearer t"}, []string{"Authorization: Bearer [secret]"},
	},
	{
		"bearer with a prefix of its own",
		creds.Credential{Authorization: creds.Bearer, Token: creds.NewSecret("t"), HeaderPrefix: text("AR-JWT")},
		[]string{"Authorization: AR-JWT t"}, []string{"Authorization: AR-JWT [secret]"},
	},
	{
		"bearer with a prefix without a space",
		creds.Credential{Authorization: creds.Bearer, Token: creds.NewSecret("t"), HeaderPrefix: text("rest_api_key=")},
		[]string{"Authorization: rest_api_key=t"}, []string{"Authorization: rest_api_key=[secret]"},
	},
	{
		"bearer without a prefix",
		creds.Credential{Authorization: creds.Bearer, Token: creds.NewSecret("t"), HeaderPrefix: text("")},
		[]string{"Authorization: t"}, []string{"Authorization: [secret]"},
	},
	{
		"api-key in a header",
		creds.Credential{Authorization: creds.APIKey, APIKey: creds.NewSecret("k"), APIKeyHeader: "x-api-key"},
		[]string{"X-Api-Key: k"}, []string{"X-Api-Key: [secret]"},
	},
	{
		"api-key in the query",
		creds.Credential{Authorization: creds.APIKey, APIKey: creds.NewSecret("k&k"), APIKeyQuery: "api key"},
		[]string{"?api key=k&k"}, []string{"?api+key=[secret]"},
	},
	{
		"an extra header does not displace the kind's",
		creds.Credential{
			Authorization: creds.Bearer, Token: creds.NewSecret("t"),
			Headers: []creds.Header{{Name: "AUTHORIZATION", Value: creds.NewSecret("x")}, {Name: "X-B", Value: creds.NewSecret("y")}},
		},
		[]string{"Authorization: Bearer t", "X-B: y"}, []string{"Authorization: Bearer [secret]", "X-B: [secret]"},
	},
}

func TestStaticKinds(t *testing.T) {
	for _, row := range statics {
		t.Run(row.name, func(t *testing.T) {
			k := &Keeper{}
			row.credential.Name = "static"
			authorization, err := k.Authorize(t.Context(), &row.credential)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, field := range authorization.Headers {
				got = append(got, field.Name+": "+field.Value.Reveal())
			}
			for _, field := range authorization.Query {
				got = append(got, "?"+field.Name+"="+field.Value.Reveal())
			}
			if strings.Join(got, "\n") != strings.Join(row.want, "\n") {
				t.Errorf("got %q, want %q", got, row.want)
			}
			if authorization.Token != "" || !authorization.Expires.IsZero() {
				t.Errorf("a static kind has token %q, expires %s", authorization.Token, authorization.Expires)
			}
			described, err := Describe(&row.credential)
			if err != nil || strings.Join(described, "\n") != strings.Join(row.described, "\n") {
				t.Errorf("described as %q, %v", described, err)
			}
			again, _ := k.Authorize(t.Context(), &row.credential)
			if again != authorization {
				t.Error("built twice")
			}
			if s := k.State("static"); s.Status != StatusNone {
				t.Errorf("state %+v", s)
			}
		})
	}
}

func TestControlCharactersAreRefused(t *testing.T) {
	for name, c := range map[string]creds.Credential{
		"19 bearer with CR LF":     {Authorization: creds.Bearer, Token: creds.NewSecret(canary + "\r\nX-Evil: 1")},
		"19 bearer with NUL":       {Authorization: creds.Bearer, Token: creds.NewSecret(canary + "\x00")},
		"19 api-key with LF":       {Authorization: creds.APIKey, APIKeyHeader: "X-Key", APIKey: creds.NewSecret(canary + "\n")},
		"19 api-key without name":  {Authorization: creds.APIKey, APIKey: creds.NewSecret(canary)},
		"19 header with DEL":       {Authorization: creds.None, Headers: []creds.Header{{Name: "X-A", Value: creds.NewSecret(canary + "\x7f")}}},
		"19 header name with CR":   {Authorization: creds.None, Headers: []creds.Header{{Name: "X-A\r", Value: creds.NewSecret(canary)}}},
		"19 OAuth prefix with LF":  {Authorization: creds.ClientCredentials, HeaderPrefix: text("Bearer\n")},
		"19 OAuth header with NUL": {Authorization: creds.ClientCredentials, Headers: []creds.Header{{Name: "X-A", Value: creds.NewSecret(canary + "\x00")}}},
	} {
		t.Run(name, func(t *testing.T) {
			c.Name = "evil"
			authorization, err := (&Keeper{}).Authorize(t.Context(), &c)
			var invalid *creds.InvalidError
			if authorization != nil || !errors.As(err, &invalid) {
				t.Errorf("%v, %v", authorization, err)
			}
			if strings.Contains(printed(err), canary) {
				t.Errorf("a secret came out: %v", err)
			}
			if _, err := Describe(&c); err == nil {
				t.Error("described as if it could be sent")
			}
		})
	}
}

func BenchmarkAuthorize(b *testing.B) {
	for _, row := range statics {
		b.Run(row.name, func(b *testing.B) {
			k := &Keeper{}
			c := row.credential
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := k.Authorize(b.Context(), &c); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
