import {
  execute,
  GraphQLEnumType,
  GraphQLError,
  GraphQLInt,
  GraphQLNonNull,
  GraphQLObjectType,
  GraphQLSchema,
  parse,
} from 'graphql';
import { expect, test } from 'vitest';
import type { Database } from '../src/database/database.js';
import { ERROR_CODES } from '../src/http/error-codes.js';
import { createMask } from '../src/http/mask.js';
import { createLog } from '../src/log.js';
import { freePort } from './support/free-port.js';
import { SHARED_ROOT_KEY, startSecondServer } from './support/second-server.js';
import { startTestServer, TEST_ADMIN_KEY } from './support/server.js';
import { createTenant } from './support/story.js';
import { type Answered, WAYS } from './support/ways.js';

const server = await startTestServer({ LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY });
const admin = { authorization: `Bearer ${TEST_ADMIN_KEY}` };
const externalId = await createTenant(server);

/** What a driver might say of a statement that failed. */
const SECRET = 'SELECT sealed_access_token FROM credential WHERE tenant = org_secret at /srv/app/src/db.ts:12';
let failing = false;
const fail = <Args extends unknown[], Result>(work: (...args: Args) => Promise<Result>) => {
  return async (...args: Args): Promise<Result> => {
    if (failing) throw new Error(SECRET);
    return work(...args);
  };
};

/** A client whose every operation fails, relations and counts included. */
const failingPrisma = new Proxy(server.db.prisma, {
  get: (client, model) => {
    const delegate = Reflect.get(client, model) as object;
    if (!failing || typeof delegate !== 'object' || delegate === null) return delegate;
    return new Proxy(delegate, { get: () => () => Promise.reject(new Error(SECRET)) });
  },
});
const db: Database = {
  ...server.db,
  query: fail(server.db.query) as Database['query'],
  transaction: fail(server.db.transaction) as Database['transaction'],
  prisma: failingPrisma,
};
const port = await freePort();
const servers = {
  development: await startSecondServer(db),
  production: await startSecondServer(db, {
    NODE_ENV: 'production',
    PORT: String(port),
    LATCHKEY_PUBLIC_URL: `http://localhost:${port}`,
    DATABASE_URL: 'postgres://127.0.0.1/not-used',
  }),
};

const CLASSES: [string, string][] = [
  ['a query', '{ tenants { edges { node { id } } } }'],
  ['a count', '{ tenants { totalCount } }'],
  ['a list that is read by itself', '{ healthEvents { edges { cursor } } }'],
  ['a look-up by id', `{ node(id: "${Buffer.from(`Tenant:${crypto.randomUUID()}`).toString('base64url')}") { id } }`],
  ['a mutation', 'mutation { createTenant(input: { externalId: "org_masked" }) { __typename } }'],
  ['a credential', `{ credential(input: { tenantId: "${externalId}", credentialFor: INSTALLATION }) { __typename } }`],
  ['the start of a subscription', `subscription { healthChanged(tenantId: "${externalId}") { cursor } }`],
];

const FAILURE = { message: 'Unexpected error.', extensions: { code: 'INTERNAL_SERVER_ERROR' } };

test.each(
  CLASSES.flatMap(([name, query]) =>
    Object.entries(servers).map(([mode, { url }]) => [name, mode, query, url] as const),
  ),
)('what fails within %s is told as one fixed error, in %s', async (_name, _mode, query, url) => {
  failing = true;
  try {
    const ways = query.startsWith('subscription') ? WAYS.slice(3) : WAYS;
    for (const [way, ask] of ways) {
      if (way === 'by GET' && query.startsWith('mutation')) continue;
      const answer: Answered = await ask(url, { query }, admin);
      expect([way, answer.errors]).toEqual([way, [expect.objectContaining(FAILURE)]]);
      expect(
        Object.keys(answer.errors?.[0] ?? {})
          .toSorted()
          .join(),
      ).toMatch(/^extensions,(locations,)?message(,path)?$/);
      expect(JSON.stringify(answer)).not.toMatch(/SELECT|sealed|\.ts|stack|secret|prisma/i);
    }
  } finally {
    failing = false;
  }
});

test('the whole failure is in the log', () => {
  for (const { logs } of Object.values(servers)) expect(logs.join('\n')).toContain('an operation failed');
});

// -------------------------------------------------------------------------------------------------------- one by one

const lines: string[] = [];
const mask = createMask({ log: createLog('debug', { write: (line) => void lines.push(line) }), hideSuggestions: true });

test.each([
  ['an exception', new Error(SECRET)],
  ['a library’s error with a code of its own', new GraphQLError(SECRET, { extensions: { code: 'P2002' } })],
  ['an error around an exception', new GraphQLError('outer', { originalError: new Error(SECRET) })],
  ['what is no error', SECRET],
  ['nothing', undefined],
])('%s is replaced', (_name, error) => {
  const masked = mask(error) as GraphQLError;
  expect(masked.toJSON()).toEqual({ message: 'Unexpected error.', extensions: { code: 'INTERNAL_SERVER_ERROR' } });
});

test.each([...ERROR_CODES])('%s is let through', (code) => {
  const error = new GraphQLError('A sentence.', { extensions: { code } });
  expect(mask(error)).toBe(error);
});

test('a value that cannot be answered is not told, and a wrong argument is', async () => {
  const level = new GraphQLEnumType({ name: 'Level', values: { LOW: {} } });
  const schema = new GraphQLSchema({
    query: new GraphQLObjectType({
      name: 'Query',
      fields: {
        level: { type: level, resolve: () => SECRET },
        count: { type: GraphQLInt, resolve: () => SECRET },
        required: { type: GraphQLInt, args: { of: { type: new GraphQLNonNull(GraphQLInt) } }, resolve: () => 1 },
      },
    }),
  });
  const document = parse('query ($of: Int = 1) { level count required(of: $of) }');
  const { errors } = await execute({ schema, document, variableValues: { of: null } });
  const masked = (errors ?? []).map((error) => (mask(error) as GraphQLError).toJSON());
  expect(masked.map(({ path, extensions }) => [path, extensions?.['code']])).toEqual([
    [['level'], 'INTERNAL_SERVER_ERROR'],
    [['count'], 'INTERNAL_SERVER_ERROR'],
    [['required'], 'BAD_USER_INPUT'],
  ]);
  expect(JSON.stringify(masked)).not.toContain('SELECT');
});
