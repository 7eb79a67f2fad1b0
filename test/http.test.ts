import { request } from 'node:http';
import { connect as connectSocket } from 'node:net';
import { serverAudits } from 'graphql-http';
import sql from 'sql-template-tag';
import { expect, test, vi } from 'vitest';
import { freePort } from './support/free-port.js';
import { SHARED_ROOT_KEY, startSecondServer } from './support/second-server.js';
import { startTestServer, TEST_ADMIN_KEY } from './support/server.js';
import { connect, createTenant, CREDENTIAL, registerApp } from './support/story.js';
import { newZoomUser } from './support/zoom-user.js';

const server = await startTestServer({ LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY });
const key = { authorization: `Bearer ${TEST_ADMIN_KEY}` };
const json = { 'content-type': 'application/json' };

/** POSTs to /graphql with the key; `body` is sent as it is, or as JSON. */
const post = (body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(`${server.url}/graphql`, {
    method: 'POST',
    headers: { ...key, ...json, ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });

/** A request as it is, without what `fetch` would tidy up in its path. */
function raw(path: string, { method = 'GET', headers = {} as Record<string, string> } = {}): Promise<number> {
  return new Promise((resolve, reject) => {
    request(server.url, { path, method, headers, agent: false }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode ?? 0));
    })
      .on('error', reject)
      .end();
  });
}

/** The status line of what is answered to bytes that no client library would send. */
function rawBytes(text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connectSocket(Number(new URL(server.url).port), '127.0.0.1', () => socket.end(text));
    let answer = '';
    socket.on('data', (chunk) => (answer += String(chunk)));
    socket.on('close', () => resolve(answer.split('\r\n')[0] ?? ''));
    socket.on('error', reject);
  });
}

// ------------------------------------------------------------------------------------------------ the specification

test('all 61 audits of the GraphQL over HTTP specification pass', async () => {
  const audits = serverAudits({
    url: `${server.url}/graphql`,
    fetchFn: (url: string, init: RequestInit = {}) =>
      fetch(url, { ...init, headers: { ...(init.headers as Record<string, string>), ...key } }),
  });
  expect(audits).toHaveLength(61);
  const results = [];
  for (const { id, name, fn } of audits) results.push({ id, name, status: (await fn()).status });
  expect(results.filter(({ status }) => status !== 'ok')).toEqual([]);
});

const VIEWER = '{ viewer { kind permissions tenant { id } } }';
const TWO = 'query A { viewer { kind } } query B { viewer { permissions } }';
const CREATE = `mutation ($input: CreateTenantInput!) {
  createTenant(input: $input) { __typename ... on CreateTenantSuccess { tenant { externalId } } ... on Error { message } }
}`;

/** Requests that both ways into the engine must answer alike. */
const ALIKE: [string, { query?: unknown; variables?: unknown; operationName?: unknown }][] = [
  ['a query', { query: VIEWER }],
  ['a query with null variables and name', { query: VIEWER, variables: null, operationName: null }],
  ['introspection', { query: '{ __schema { types { name fields { name } } } }' }],
  ['a chosen operation', { query: TWO, operationName: 'B' }],
  ['an operation that is not in the document', { query: TWO, operationName: 'C' }],
  ['an operation that is not chosen', { query: TWO }],
  ['an empty operation name', { query: VIEWER, operationName: '' }],
  ['an unknown field', { query: '{ nothing }' }],
  ['a syntax error', { query: '{ viewer {' }],
  ['an empty document', { query: '' }],
  ['a fragment alone', { query: 'fragment F on Viewer { kind }' }],
  ['a missing variable', { query: 'query ($id: ID!) { node(id: $id) { id } }' }],
  [
    'a variable of a wrong type',
    { query: 'query ($first: Int) { tenants(first: $first) { totalCount } }', variables: { first: 'many' } },
  ],
  ['an input object with an unknown field', { query: CREATE, variables: { input: { externalId: 'a', more: 1 } } }],
  ['an unknown enum value', { query: '{ installations(filter: { status: [FINE] }) { totalCount } }' }],
  [
    'a variable that is a malformed scalar',
    {
      query: 'mutation ($input: UpdateProviderAppInput!) { updateProviderApp(input: $input) { __typename } }',
      variables: { input: { id: 'x', retireFormerSecretAt: 'tomorrow' } },
    },
  ],
  ['variables that are a list', { query: VIEWER, variables: [] }],
  ['variables that are a text', { query: VIEWER, variables: 'none' }],
  ['a name that is a number', { query: VIEWER, operationName: 7 }],
  ['a query that is a number', { query: 7 }],
  ['no query', { variables: {} }],
  ['a page that is too large', { query: '{ tenants(first: 101) { totalCount } }' }],
  ['a malformed cursor', { query: '{ tenants(after: "x") { totalCount } }' }],
  [
    'a text that cannot be stored',
    { query: 'query ($id: String!) { tenant(externalId: $id) { id } }', variables: { id: '\0' } },
  ],
  ['an outcome that is an error', { query: CREATE, variables: { input: { externalId: 'two words' } } }],
  [
    'a mutation of nothing',
    { query: 'mutation { revokeInstallation(input: { id: "x" }) { __typename ... on Error { message } } }' },
  ],
  ['what exists nowhere', { query: '{ node(id: "x") { id } tenant(externalId: "x") { id } }' }],
  ['two aliases of one field', { query: '{ a: viewer { kind } b: viewer { kind } }' }],
  ['directives', { query: 'query ($yes: Boolean = true) { viewer @include(if: $yes) { kind @skip(if: $yes) } }' }],
];

const mediaTypeOf = (response: Response) => response.headers.get('content-type')?.split(';')[0];

test.each(ALIKE)('%s is answered alike by both ways into the engine', async (_name, params) => {
  for (const [accept, negotiated] of [
    ['application/json', 'application/json, text/x'],
    ['application/graphql-response+json', 'application/graphql-response+json, text/x'],
    ['*/*', 'text/x, */*'],
  ] as const) {
    const direct = await post(params, { accept });
    const answer = { status: direct.status, type: mediaTypeOf(direct), body: await direct.json() };
    for (const [body, header] of [
      [params, negotiated],
      [{ ...params, extensions: {} }, accept],
    ] as const) {
      const other = await post(body, { accept: header });
      expect({ status: other.status, type: mediaTypeOf(other), body: await other.json() }).toEqual(answer);
    }
  }
});

test.each([
  'query ($x: String!) { tenant(externalId: $x) { id } }',
  'query ($x: String!) { userConnections(filter: { tenantId: $x }) { totalCount } }',
  'query ($x: String!) { healthEvents(filter: { tenantId: $x }) { pageInfo { endCursor } } }',
])('a text that the database cannot hold is the mistake of who sent it: %s', async (query) => {
  const before = server.logs.length;
  const { errors } = await server.graphql(query, { x: 'a\0b' });
  expect(errors).toMatchObject([{ extensions: { code: 'BAD_USER_INPUT' } }]);
  expect(server.logs.slice(before).filter((line) => line.includes('"level":50'))).toEqual([]);
});

test('a mutation is carried out once on either way, and answered alike', async () => {
  const answers = [];
  for (const accept of ['application/json', 'application/json, text/x']) {
    const externalId = `org_${Math.random().toString(36).slice(2)}`;
    const response = await post({ query: CREATE, variables: { input: { externalId } } }, { accept });
    answers.push((await response.text()).replace(externalId, 'org'));
    expect(
      (await server.data('query ($e: String!) { tenant(externalId: $e) { id } }', { e: externalId })).tenant,
    ).not.toBeNull();
  }
  expect(answers[0]).toContain('CreateTenantSuccess');
  expect(answers[1]).toBe(answers[0]);
});

test('answers may be kept by no cache and read as nothing else', async () => {
  for (const accept of ['application/json', 'application/json, text/x']) {
    const { headers } = await post({ query: VIEWER }, { accept });
    expect(headers.get('cache-control')).toBe('no-store');
    expect(headers.get('x-content-type-options')).toBe('nosniff');
    expect(headers.get('access-control-allow-origin')).toBeNull();
  }
});

// -------------------------------------------------------------------------------------------------------- who is let in

const REFUSED: [string, Record<string, string>][] = [
  ['no header', {}],
  ['a wrong key', { authorization: 'Bearer wrong' }],
  ['a longer key', { authorization: `Bearer ${TEST_ADMIN_KEY}x` }],
  ['a shorter key', { authorization: `Bearer ${TEST_ADMIN_KEY.slice(0, -1)}` }],
  ['another scheme', { authorization: `Basic ${Buffer.from(`admin:${TEST_ADMIN_KEY}`).toString('base64')}` }],
  ['the key without a scheme', { authorization: TEST_ADMIN_KEY }],
  ['two keys', { authorization: `Bearer ${TEST_ADMIN_KEY} ${TEST_ADMIN_KEY}` }],
];

test.each(REFUSED)('with %s every request is answered 401, whatever it asks for', async (_name, headers) => {
  const bodies = new Set<string>();
  for (const [method, body, more] of [
    ['POST', '{"query":"{ viewer { kind } }"}', json],
    ['POST', '{"query":"{ nothing', json],
    ['POST', 'x'.repeat(200_000), json],
    ['POST', 'query=x', {}],
    ['POST', '{"query":"subscription { healthChanged { id } }"}', { ...json, accept: 'text/event-stream' }],
    ['GET', undefined, {}],
    ['PUT', undefined, {}],
  ] as const) {
    const response = await fetch(`${server.url}/graphql`, {
      method,
      headers: { ...more, ...headers },
      ...(body ? { body } : {}),
    });
    expect([method, response.status]).toEqual([method, 401]);
    expect(response.headers.get('www-authenticate')).toBe('Bearer');
    expect(mediaTypeOf(response)).toBe('application/json');
    bodies.add(await response.text());
  }
  expect([...bodies]).toEqual([
    '{"errors":[{"message":"Send a valid server key as \\"Authorization: Bearer <key>\\".","extensions":{"code":"UNAUTHENTICATED"}}]}',
  ]);
});

test('a key in the address is not taken', async () => {
  for (const name of ['token', 'authorization', 'access_token', 'key']) {
    const response = await fetch(`${server.url}/graphql?${name}=${TEST_ADMIN_KEY}&query={viewer{kind}}`);
    expect([name, response.status]).toEqual([name, 401]);
  }
});

test.each([
  ['Origin', { origin: 'https://product.example' }],
  ['Origin null', { origin: 'null' }],
  ['Sec-Fetch-Site', { 'sec-fetch-site': 'cross-site' }],
  ['Sec-Fetch-Dest', { 'sec-fetch-dest': 'empty' }],
  ['Cookie', { cookie: 'a=b' }],
])('a right server key that comes with %s is refused with 403', async (_name, headers) => {
  expect(
    await raw('/graphql?query={viewer{kind}}', { headers: { ...key, ...headers } as Record<string, string> }),
  ).toBe(403);
});

test('Sec-Fetch-Mode alone is no browser: the fetch of Node sends it', async () => {
  expect(await raw('/graphql?query={viewer{kind}}', { headers: { ...key, 'sec-fetch-mode': 'cors' } })).toBe(200);
});

// ------------------------------------------------------------------------------------------------------------ GraphiQL

test('in development a browser gets GraphiQL, whose requests are let in from its own origin alone', async () => {
  const page = await fetch(`${server.url}/graphql`, {
    headers: { accept: 'text/html,application/xhtml+xml,*/*;q=0.8' },
  });
  expect([page.status, mediaTypeOf(page)]).toEqual([200, 'text/html']);
  const html = await page.text();
  expect(html).toContain('GraphiQL');
  expect(html).not.toContain(TEST_ADMIN_KEY);

  const own = {
    origin: server.url,
    'sec-fetch-site': 'same-origin',
    'sec-fetch-dest': 'empty',
    'sec-fetch-mode': 'cors',
  };
  const ask = async (headers: Record<string, string>) =>
    raw('/graphql?query={viewer{kind}}', { headers: { ...key, ...headers } });
  expect(await ask(own)).toBe(200);
  expect(await ask({ ...own, origin: 'http://localhost:1' })).toBe(403);
  expect(await ask({ ...own, 'sec-fetch-site': 'same-site' })).toBe(403);
  expect(await ask({ ...own, 'sec-fetch-site': 'cross-site' })).toBe(403);
});

test.each([
  'text/html',
  'x-text/html',
  'text/html, text/event-stream',
  'text/html;q=0, application/graphql-response+json',
])('asking for a page with %s executes nothing without a key', async (accept) => {
  const answer = await fetch(`${server.url}/graphql?query=${encodeURIComponent('{viewer{kind permissions}}')}`, {
    headers: { accept },
  });
  expect(await answer.text()).not.toContain('SERVER_KEY');
});

test.each(['constructor', '__proto__', 'toString'])('Accept: %s is answered like any unknown type', async (accept) => {
  const ask = (headers: Record<string, string>) =>
    fetch(`${server.url}/graphql`, {
      method: 'POST',
      headers: { ...key, 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ query: '{ __typename }' }),
    });
  const [odd, unknown] = [await ask({ accept }), await ask({ accept: 'x/unknown' })];
  expect([odd.status, odd.headers.get('content-type')]).toEqual([unknown.status, unknown.headers.get('content-type')]);
});

// ------------------------------------------------------------------------------------------------------ paths, methods

test.each([
  '/',
  '/graphql/',
  '/graphqlx',
  '/graphql/x',
  '//graphql',
  '/GraphQL',
  '/%67raphql',
  '/graphql%2f',
  '/graphql;x',
  '/./graphql',
  '/x/../graphql',
  '/oauth',
  '/oauth/',
  '/oauth/start',
  '/oauth/start/',
  '/oauth/start/a/b',
  '/oauth/start/%61',
  '/oauth/callback',
  '/oauth/callback/',
  '/webhooks',
  '/webhooks/zoom',
  '/webhooks/zoom/',
  '/webhooks/zoom/a/b',
  '/livez/',
  '/livez/x',
  '/readyz/x',
  '/-',
  '/health',
  '/favicon.ico',
  '/__proto__',
  '/constructor',
  '/toString',
  '/.env',
  '/graphql/../livez',
  '/livez%00',
])('%s is nowhere: 404', async (path) => {
  for (const method of ['GET', 'POST'])
    expect([method, await raw(path, { method, headers: key })]).toEqual([method, 404]);
});

test('a target that is no path is refused', async () => {
  for (const target of ['http://localhost/livez', '*', 'http://evil.example/graphql']) {
    const line = await rawBytes(`OPTIONS ${target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`);
    expect([target, line]).toEqual([target, 'HTTP/1.1 404 Not Found']);
  }
});

test.each([
  ['/livez', ['POST', 'PUT', 'DELETE', 'OPTIONS', 'HEAD'], 'GET'],
  ['/readyz', ['POST'], 'GET'],
  ['/oauth/start/x', ['POST', 'DELETE'], 'GET'],
  ['/oauth/callback/x', ['POST', 'PUT'], 'GET'],
  ['/webhooks/zoom/x', ['GET', 'PUT', 'HEAD'], 'POST'],
  ['/graphql', ['PUT', 'DELETE', 'PATCH', 'OPTIONS', 'HEAD', 'TRACE'], 'GET, POST'],
] as const)('%s answers other methods with 405 and names the right one', async (path, methods, allow) => {
  for (const method of methods) {
    const line = await new Promise<[number | undefined, string | undefined]>((resolve, reject) => {
      request(server.url, { path, method, headers: key, agent: false }, (response) => {
        response.resume();
        resolve([response.statusCode, response.headers.allow]);
      })
        .on('error', reject)
        .end();
    });
    expect([method, ...line]).toEqual([method, 405, allow]);
  }
});

test('a mutation by GET is refused and changes nothing', async () => {
  const externalId = `org_${Math.random().toString(36).slice(2)}`;
  const query = `mutation { createTenant(input: { externalId: "${externalId}" }) { __typename } }`;
  const response = await fetch(`${server.url}/graphql?${new URLSearchParams({ query })}`, { headers: key });
  expect(response.status).toBe(405);
  expect(
    (await server.data('query ($e: String!) { tenant(externalId: $e) { id } }', { e: externalId })).tenant,
  ).toBeNull();
});

test('liveness and readiness are told to anyone', async () => {
  for (const [path, body] of [
    ['/livez', { live: true }],
    ['/readyz', { ready: true }],
  ] as const) {
    const response = await fetch(`${server.url}${path}?probe=1`);
    expect([response.status, await response.json()]).toEqual([200, body]);
  }
});

// -------------------------------------------------------------------------------------------------------------- bodies

test.each([
  ['application/x-www-form-urlencoded', 'query={viewer{kind}}'],
  [
    'multipart/form-data; boundary=x',
    '--x\r\ncontent-disposition: form-data; name="operations"\r\n\r\n{"query":"{viewer{kind}}"}\r\n--x--',
  ],
  ['text/plain', '{"query":"{ viewer { kind } }"}'],
  ['application/graphql', '{ viewer { kind } }'],
  ['application/jsonx', '{"query":"{ viewer { kind } }"}'],
  ['', '{"query":"{ viewer { kind } }"}'],
])('a body of type "%s" is not read: 415', async (type, body) => {
  const response = await post(body, { 'content-type': type });
  expect(response.status).toBe(415);
  expect((await response.json()).errors[0].extensions.code).toBe('UNSUPPORTED_MEDIA_TYPE');
});

test('a body may have 100 KiB and not a byte more', async () => {
  const body = (length: number) => {
    const start = '{"query":"{ viewer { kind } }","variables":{"x":"';
    return `${start}${'x'.repeat(length - start.length - 3)}"}}`;
  };
  expect((await post(body(102_400))).status).toBe(200);
  const refused = await post(body(102_401));
  expect([refused.status, (await refused.json()).errors[0].extensions.code]).toEqual([413, 'PAYLOAD_TOO_LARGE']);
});

test('a body that does not tell its length is cut off at 100 KiB, too', async () => {
  const chunks = new ReadableStream({
    start(controller) {
      for (let i = 0; i < 20; i += 1) controller.enqueue(new Uint8Array(10_000).fill(0x20));
      controller.close();
    },
  });
  const init = { method: 'POST', headers: { ...key, ...json }, body: chunks, duplex: 'half' };
  expect((await fetch(`${server.url}/graphql`, init as RequestInit)).status).toBe(413);
});

test.each([
  ['malformed JSON', '{"query":'],
  ['a batch', '[{"query":"{ viewer { kind } }"}]'],
  ['an empty batch', '[]'],
  ['a text', '"{ viewer { kind } }"'],
  ['null', 'null'],
  ['nothing', ''],
])('%s is answered 400', async (_name, body) => {
  for (const accept of ['application/json', '*/*', 'application/graphql-response+json']) {
    const response = await post(body, { accept });
    expect(response.status).toBe(400);
    expect((await response.json()).errors).toHaveLength(1);
  }
});

// -------------------------------------------------------------------------------------------------------------- masking

test('an internal failure is told as one fixed error, with nothing of what it was', async () => {
  const app = await registerApp(server, 'USER_MANAGED');
  const tenantId = await createTenant(server);
  await connect(server, 'beginAuthorization', { tenantId, userId: 'u', appId: app.id }, newZoomUser(server));
  await server.db.query(sql`
    UPDATE credential SET sealed_access_token = '\\x00'::bytea FROM provider_grant g JOIN tenant t ON t.id = g.tenant_id
    WHERE g.id = grant_id AND t.external_id = ${tenantId}`);
  const input = { tenantId, credentialFor: 'USER', userId: 'u' };
  try {
    vi.stubEnv('NODE_ENV', 'development');
    for (const accept of ['application/json', 'application/json, text/x']) {
      const response = await post({ query: CREDENTIAL, variables: { input } }, { accept });
      expect([response.status, await response.json()]).toEqual([
        200,
        {
          data: { credential: null },
          errors: [
            {
              message: 'Stored secrets cannot be opened at the moment.',
              locations: [{ line: 2, column: 3 }],
              path: ['credential'],
              extensions: { code: 'VAULT_UNAVAILABLE' },
            },
          ],
        },
      ]);
    }
    // A tenant without an active key, which no code of ours would leave: the failure speaks of tables and columns.
    await server.db.query(sql`
      UPDATE tenant_key SET active = false WHERE tenant_id = (SELECT id FROM tenant WHERE external_id = ${tenantId})`);
    for (const accept of ['application/json', 'application/json, text/x']) {
      const query = 'query ($e: String!) { tenant(externalId: $e) { key { version } } }';
      const text = await (await post({ query, variables: { e: tenantId } }, { accept })).text();
      expect(JSON.parse(text).errors).toEqual([
        expect.objectContaining({
          message: 'Unexpected error.',
          path: ['tenant', 'key'],
          extensions: { code: 'INTERNAL_SERVER_ERROR' },
        }),
      ]);
      expect(text).not.toMatch(/prisma|select|stack|\.ts|node_modules|tenant_key/i);
    }
  } finally {
    vi.unstubAllEnvs();
  }
  expect(server.logs.filter((line) => line.includes('an operation failed')).length).toBeGreaterThanOrEqual(4);
});

// ----------------------------------------------------------------------------------------------------------- production

test('in production no page is served, and a server key is taken from no browser', async () => {
  const port = await freePort();
  const production = await startSecondServer(server.db, {
    NODE_ENV: 'production',
    PORT: String(port),
    LATCHKEY_PUBLIC_URL: `http://localhost:${port}`,
    DATABASE_URL: 'postgres://127.0.0.1/not-used',
  });
  const page = await fetch(`${production.url}/graphql`, { headers: { accept: 'text/html' } });
  expect([page.status, mediaTypeOf(page)]).toEqual([401, 'application/json']);
  const withKey = await fetch(`${production.url}/graphql`, { headers: { ...key, accept: 'text/html' } });
  expect(await withKey.text()).not.toContain('<html');
  const own = { ...key, ...json, origin: production.url, 'sec-fetch-site': 'same-origin' };
  const ask = (headers: Record<string, string>) =>
    fetch(`${production.url}/graphql`, { method: 'POST', headers, body: '{"query":"{ viewer { kind } }"}' });
  expect((await ask(own)).status).toBe(403);
  expect((await ask({ ...key, ...json })).status).toBe(200);
});
