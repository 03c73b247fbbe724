// The OpenID provider of the tests: oidc-provider on loopback TLS, as strict as it
// comes. A refresh token is good for one use; a second one revokes the grant with
// all its tokens. The first line of standard input is its setup; it prints one line
// when it answers, and ends with its standard input. The fields of both, and what
// lies under /admin/, stand in ../oidc.go.
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';
import { generateKeyPairSync, randomBytes } from 'node:crypto';

console.info = console.log = console.error; // standard output is for one line alone
const { default: Provider } = await import('oidc-provider');

const input = createInterface({ input: process.stdin });
const setup = await new Promise((resolve) => input.once('line', (line) => resolve(JSON.parse(line))));
input.on('close', () => process.exit());

// What happened so far.
const stats = {
  calls: 0, // of the token endpoint, those that it never got included
  granted: {}, // tokens given, by grant type
  errors: {}, // refusals, by OAuth error code
  unavailable: 0, too_many: 0, lost: 0, // calls that met a fault
  reused: 0, // uses of a refresh token that had been used before
  grants_revoked: 0,
  access_tokens_revoked: 0,
};
let faults = {};
let underWay = 0; // calls of the token endpoint that the provider has not done yet
const whenIdle = []; // who waits for them

const records = new Map(); // 'RefreshToken:ID' -> { payload, ends }
const ofGrant = new Map(); // grant id -> keys of what it gave

// Adapter keeps everything in memory, and knows the one leniency that there is.
class Adapter {
  constructor(model) { this.model = model; }

  key(id) { return `${this.model}:${id}`; }

  async upsert(id, payload, expiresIn) {
    const key = this.key(id);
    records.set(key, { payload, ends: expiresIn ? Date.now() + expiresIn * 1000 : Infinity });
    if (payload.grantId) ofGrant.set(payload.grantId, [...(ofGrant.get(payload.grantId) ?? []), key]);
  }

  async find(id) {
    const record = records.get(this.key(id));
    if (!record) return undefined;
    if (record.ends < Date.now()) {
      records.delete(this.key(id));
      return undefined;
    }
    // With a leeway a used refresh token is as good as new for so long after its
    // first use, as at Ory Hydra: each use gives a pair of its own.
    if (this.model === 'RefreshToken' && Date.now() - record.consumedAt <= setup.leeway) {
      const { consumed, ...fresh } = record.payload;
      return fresh;
    }
    return record.payload;
  }

  async findByUid(uid) {
    for (const [key, { payload }] of records) {
      if (key.startsWith(`${this.model}:`) && payload.uid === uid) return payload;
    }
    return undefined;
  }

  async consume(id) {
    const record = records.get(this.key(id));
    record.consumedAt ??= Date.now();
    record.payload = { ...record.payload, consumed: Math.floor(Date.now() / 1000) };
  }

  async destroy(id) { records.delete(this.key(id)); }

  async revokeByGrantId(grantId) {
    for (const key of ofGrant.get(grantId) ?? []) records.delete(key);
    ofGrant.delete(grantId);
  }
}

function drop(model) {
  const keys = [...records.keys()].filter((key) => key.startsWith(`${model}:`));
  for (const key of keys) records.delete(key);
  return keys.length;
}

const server = createServer({ cert: setup.cert, key: setup.key });
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `https://${setup.host}:${server.address().port}`;

const seconds = (ms) => () => Math.max(1, Math.round(ms / 1000));
const provider = new Provider(issuer, {
  adapter: Adapter,
  clients: setup.clients.map(({ id, secret, auth }) => ({
    client_id: id,
    client_secret: secret,
    token_endpoint_auth_method: auth,
    grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
    response_types: ['code'],
    redirect_uris: ['https://console.example/oauth/callback'],
    id_token_signed_response_alg: 'ES256',
  })),
  cookies: { keys: [randomBytes(16).toString('hex')] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    revocation: { enabled: true },
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (_, { uid }) => `/interaction/${uid}` },
  issueRefreshToken: () => true,
  expiresWithSession: () => false,
  rotateRefreshToken: true,
  pkce: { methods: ['S256'], required: () => true },
  jwks: { keys: [generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' })] },
  ttl: {
    AccessToken: seconds(setup.access_token),
    ClientCredentials: seconds(setup.access_token),
    RefreshToken: seconds(setup.refresh_token),
    AuthorizationCode: seconds(60_000),
    Grant: seconds(86_400_000),
    IdToken: seconds(60_000),
    Interaction: seconds(600_000),
    Session: seconds(3_600_000),
  },
});

// A redirect URL on loopback, with any port and path, is the one of a command or
// of a page under test.
const registered = provider.Client.prototype.redirectUriAllowed;
provider.Client.prototype.redirectUriAllowed = function allowed(uri) {
  return /^https?:\/\/(127\.0\.0\.1|localhost)(:\d+)?\//.test(uri) || registered.call(this, uri);
};

const count = (table, name) => { table[name] = (table[name] ?? 0) + 1; };
const used = new Set();
function noteUse(ctx) {
  const token = ctx.oidc.params?.refresh_token;
  if (!token) return;
  if (used.has(token)) stats.reused += 1;
  used.add(token);
}
provider.on('grant.success', (ctx) => { noteUse(ctx); count(stats.granted, ctx.oidc.params.grant_type); });
provider.on('grant.error', (ctx, error) => {
  if (error.error === 'invalid_grant') noteUse(ctx);
  count(stats.errors, error.error);
});
provider.on('grant.revoked', () => { stats.grants_revoked += 1; });
provider.on('server_error', (_, error) => { console.error(error); });

const page = `<!doctype html><html lang="en"><title>Test provider</title>
<form method="post"><label>Name <input name="login" value="alice"></label>
<button name="answer" value="allow">Allow</button> <button name="answer" value="deny">Deny</button></form></html>`;

// consent is one page for login and consent: a GET shows it, a POST answers it.
async function consent(request, response) {
  const { params } = await provider.interactionDetails(request, response);
  if (request.method !== 'POST') {
    response.setHeader('Content-Type', 'text/html; charset=utf-8');
    response.end(page);
    return;
  }
  const answer = new URLSearchParams(await body(request));
  if (answer.get('answer') === 'deny') {
    await provider.interactionFinished(request, response, { error: 'access_denied', error_description: 'the user said no' });
    return;
  }
  const accountId = answer.get('login') || 'alice';
  const grant = new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope ?? 'openid');
  await provider.interactionFinished(request, response, { login: { accountId }, consent: { grantId: await grant.save() } });
}

async function body(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text;
}

// admin is how a test looks in and interferes.
const admin = {
  'GET /admin/stats': async () => { // between calls, or they would be counted without their outcome
    while (underWay > 0) await new Promise((resolve) => { whenIdle.push(resolve); });
    return stats;
  },
  'PUT /admin/faults': async (request) => { faults = JSON.parse(await body(request)); return faults; },
  'POST /admin/revoke-access-tokens': () => {
    const revoked = drop('AccessToken');
    stats.access_tokens_revoked += revoked;
    return { revoked };
  },
  'POST /admin/revoke-grants': () => {
    drop('AccessToken');
    drop('RefreshToken');
    return { revoked: drop('Grant') };
  },
};

// meetsFault lets a call of the token endpoint meet what the test asked for. The
// first two are answers in the provider's place; a lost answer is that of a call
// which the provider did.
function meetsFault(request, response) {
  stats.calls += 1;
  const draw = Math.random();
  const unavailable = faults.unavailable ?? 0;
  const tooMany = unavailable + (faults.too_many ?? 0);
  if (draw < tooMany) {
    const kind = draw < unavailable ? 'unavailable' : 'too_many';
    stats[kind] += 1;
    request.resume();
    const headers = { 'Content-Type': 'text/html' };
    if (faults.retry_after) headers['Retry-After'] = String(faults.retry_after);
    response.writeHead(kind === 'unavailable' ? 503 : 429, headers).end('<html>busy</html>');
    return true;
  }
  if (draw < tooMany + (faults.lost ?? 0)) {
    response.end = () => {
      stats.lost += 1;
      request.socket.destroy();
      return response;
    };
  }
  return false;
}

const oidc = provider.callback();
async function answer(request, response) {
  const { pathname } = new URL(request.url, issuer);
  if (pathname.startsWith('/admin/')) {
    const handler = admin[`${request.method} ${pathname}`];
    response.writeHead(handler ? 200 : 404, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(handler ? await handler(request) : {}));
  } else if (pathname.startsWith('/interaction/')) {
    await consent(request, response);
  } else if (pathname !== '/token') {
    await oidc(request, response);
  } else if (!meetsFault(request, response)) {
    underWay += 1;
    try {
      await oidc(request, response);
    } finally {
      underWay -= 1;
      if (underWay === 0) whenIdle.splice(0).forEach((resolve) => { resolve(); });
    }
  }
}
server.on('request', (request, response) => {
  answer(request, response).catch((error) => {
    console.error(error);
    if (!response.headersSent) response.writeHead(400);
    response.end();
  });
});
server.keepAliveTimeout = 60_000;
process.stdout.write(`${JSON.stringify({ issuer })}\n`);
