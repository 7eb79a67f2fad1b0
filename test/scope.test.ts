import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { startTestServer } from './support/server.js';
import { connect, createTenant, credential, registerProviderApp } from './support/story.js';
import { newZoomUser } from './support/zoom-user.js';

const server = await startTestServer();

const SCOPE = '__typename id name description level vocabulary resource covers { name }';
const scope = async (name: string) =>
  (await server.data(`query ($name: String!) { scope(name: $name) { ${SCOPE} } }`, { name })).scope;
const node = async (id: string) =>
  (await server.data(`query ($id: ID!) { node(id: $id) { ... on Scope { ${SCOPE} } } }`, { id })).node;

const SCOPES = `query ($first: Int, $after: String, $last: Int, $before: String, $filter: ScopeFilter) {
  scopes(first: $first, after: $after, last: $last, before: $before, filter: $filter) {
    totalCount edges { cursor node { id name level vocabulary resource description } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}`;
const scopes = async (variables: Record<string, unknown>) => {
  const page = (await server.data(SCOPES, variables)).scopes;
  return { ...page, names: page.edges.map((edge: any): string => edge.node.name) };
};

const named = (names: readonly string[]) => names.map((name) => ({ name }));

describe('reading the catalogue', () => {
  test('a scope tells its level, vocabulary and resource, and what it allows in a sentence', async () => {
    expect(await scope('meeting:read:list_meetings:admin')).toEqual({
      __typename: 'Scope',
      id: expect.any(String),
      name: 'meeting:read:list_meetings:admin',
      description: 'List the meetings of a user. For the whole account.',
      level: 'ADMIN',
      vocabulary: 'GRANULAR',
      resource: 'meeting',
      covers: [],
    });
  });

  test('a classic scope tells the granular ones that it covers', async () => {
    const classic = await scope('meeting_token:read:admin:local_recording');
    expect(classic).toMatchObject({
      level: 'ADMIN',
      vocabulary: 'CLASSIC',
      covers: named(['meeting:read:local_recording_token:admin']),
    });
    expect((await scope('meeting:write')).covers).toHaveLength(25);
  });

  test.each(['recording:read:recording', 'report:read:report:admin', 'meeting', '', 'Meeting:Read', '__proto__'])(
    'there is no scope %j',
    async (name) => {
      expect(await scope(name)).toBeNull();
    },
  );

  test.each([
    [{}, 2937],
    [null, 2937],
    [{ provider: 'ZOOM' }, 2937],
    [{ vocabulary: 'GRANULAR' }, 2501],
    [{ vocabulary: 'CLASSIC' }, 436],
    [{ vocabulary: 'GRANULAR', level: 'USER' }, 566],
    [{ vocabulary: 'GRANULAR', level: 'ADMIN' }, 1300],
    [{ vocabulary: 'GRANULAR', level: 'MASTER' }, 635],
    [{ resource: 'user_zak' }, 1],
    [{ resource: 'nothing' }, 0],
    [{ resource: '' }, 0],
    [{ search: '' }, 2937],
    [{ search: 'no scope says this' }, 0],
    [{ level: null, vocabulary: null, resource: null, search: null }, 2937],
  ])('the filter %j matches %i scopes', async (filter, count) => {
    const page = await scopes({ first: 100, filter });
    expect(page.totalCount).toBe(count);
    expect(page.edges).toHaveLength(Math.min(count, 100));
    for (const { node: found } of page.edges) {
      for (const [field, value] of Object.entries(filter ?? {})) {
        if (field in found && value !== null) expect(found[field]).toBe(value);
      }
    }
  });

  test('a search takes words of the name and of the description, in any case and order', async () => {
    const filter = { vocabulary: 'GRANULAR', level: 'USER' };
    expect((await scopes({ filter: { ...filter, search: 'LOCALLY meeting:read' } })).names).toEqual([
      'meeting:read:local_recording_token',
    ]);
    expect((await scopes({ filter: { ...filter, search: 'bot record' } })).names).toEqual([
      'meeting:read:local_recording_token',
      'webinar:read:local_recording_token',
    ]);
  });

  test('pages follow each other through the whole list, ordered by name, forwards and backwards', async () => {
    const filter = { vocabulary: 'CLASSIC' };
    const forwards: string[] = [];
    for (let after: string | null = null, more = true; more;) {
      const page: Awaited<ReturnType<typeof scopes>> = await scopes({ first: 100, after, filter });
      expect(page.pageInfo.hasPreviousPage).toBe(after !== null);
      forwards.push(...page.names);
      ({ endCursor: after, hasNextPage: more } = page.pageInfo);
    }
    expect(forwards).toHaveLength(436);
    expect(forwards).toEqual(forwards.toSorted());
    const backwards: string[] = [];
    for (let before: string | null = null, more = true; more;) {
      const page: Awaited<ReturnType<typeof scopes>> = await scopes({ last: 100, before, filter });
      expect(page.pageInfo.hasNextPage).toBe(before !== null);
      backwards.unshift(...page.names);
      ({ startCursor: before, hasPreviousPage: more } = page.pageInfo);
    }
    expect(backwards).toEqual(forwards);
    // A cursor is a place in the order of names, whatever the filter.
    const { pageInfo } = await scopes({ first: 1, filter: { search: 'meeting:read:zz' } });
    expect(pageInfo).toEqual({ hasNextPage: false, hasPreviousPage: false, startCursor: null, endCursor: null });
    const [first] = (await scopes({ first: 1, filter: { resource: 'user_zak' } })).edges;
    expect((await scopes({ first: 1, after: first.cursor, filter })).names).toEqual(['video_mgmt_channels:read']);
  });

  test.each([
    { first: 101 },
    { first: -1 },
    { last: 101 },
    { after: '' },
    { after: 'x' },
    { before: Buffer.from('GPC:S:x').toString('base64') },
  ])('the page %j is refused as bad input', async (variables) => {
    const { errors } = await server.graphql(SCOPES, variables);
    expect(errors).toMatchObject([{ extensions: { code: 'BAD_USER_INPUT' } }]);
  });

  test('two scopes of one name are two, each with an id of its own that finds it again', async () => {
    const { edges } = await scopes({ filter: { search: 'meeting:write:sip_dialing', level: 'USER' } });
    expect(edges.map((edge: any) => edge.node.vocabulary).toSorted()).toEqual(['CLASSIC', 'GRANULAR']);
    for (const edge of edges) expect(await node(edge.node.id)).toMatchObject(edge.node);
    expect((await scope('meeting:write:sip_dialing')).vocabulary).toBe('GRANULAR');
  });
});

const CHECK = `mutation ($input: RegisterProviderAppInput!) {
  registerProviderApp(input: $input) {
    __typename
    ... on RegisterProviderAppSuccess { providerApp { id scopes { id name description level vocabulary } } }
    ... on UnknownScopesError { message scopes { name problem suggestions } }
    ... on InvalidInputError { path }
  }
}`;
const register = async (kind: string, names: readonly string[], patch: Record<string, unknown> = {}) => {
  const id = randomBytes(9).toString('base64url');
  const input = { name: 'A', kind, clientId: id, clientSecret: id, scopes: named(names), ...patch };
  return (await server.data(CHECK, { input })).registerProviderApp;
};
const update = async (input: Record<string, unknown>) =>
  (await server.data(CHECK.replaceAll('register', 'update').replaceAll('Register', 'Update'), { input }))
    .updateProviderApp;

describe('checking the scopes of an app', () => {
  test.each([
    [
      'recording:read:recording',
      ['cloud_recording:read:list_user_recordings', 'cloud_recording:read:list_recording_files'],
    ],
    [
      'recording:read:recording:admin',
      ['cloud_recording:read:list_user_recordings:admin', 'cloud_recording:read:list_recording_files:admin'],
    ],
    [
      'report:read:report:admin',
      ['report:read:user:admin', 'report:read:meeting:admin', 'report:read:list_meeting_participants:admin'],
    ],
    ['dashboard:read:dashboard:admin', ['dashboard:read:list_meetings:admin', 'dashboard:read:meeting:admin']],
    ['meeting:read:meetings', ['meeting:read:meeting', 'meeting:read:list_meetings']],
    ['meeting:read:meeting:user', ['meeting:read:meeting']],
    ['meeting:create:meeting', ['meeting:write:meeting']],
    ['meetings:read:meeting', ['meeting:read:meeting']],
    ['recording:read:list_recording_files', ['cloud_recording:read:list_recording_files']],
    ['User:Read', ['user:read']],
  ])('%s is not in the catalogue, and the nearest real names are told', async (name, nearest) => {
    const answer = await register(name.endsWith(':admin') ? 'ADMIN_MANAGED' : 'USER_MANAGED', [name]);
    expect(answer).toEqual({
      __typename: 'UnknownScopesError',
      message: expect.any(String),
      scopes: [{ name, problem: 'NOT_IN_CATALOGUE', suggestions: expect.any(Array) }],
    });
    const [{ suggestions }] = answer.scopes;
    expect(suggestions.slice(0, nearest.length)).toEqual(nearest);
    for (const suggestion of suggestions) expect(await scope(suggestion)).not.toBeNull();
  });

  test('names that the kind of the app could use are suggested before those as written', async () => {
    const { scopes: refused } = await register('USER_MANAGED', ['recording:read:recording:admin']);
    expect(refused[0].suggestions).toEqual([
      'cloud_recording:read:list_user_recordings',
      'cloud_recording:read:list_recording_files',
      'cloud_recording:read:list_user_recordings:admin',
      'cloud_recording:read:list_recording_files:admin',
    ]);
  });

  test.each([
    ['USER_MANAGED', 'user:read:user:admin', ['user:read:user']],
    ['USER_MANAGED', 'user:read:list_users:admin', []],
    ['USER_MANAGED', 'user:read:user:master', ['user:read:user']],
    ['USER_MANAGED', 'user:read:admin', ['user:read']],
    ['USER_MANAGED', 'account:master', []],
    ['ADMIN_MANAGED', 'user:read:user', ['user:read:user:admin', 'user:read:user:master']],
    ['ADMIN_MANAGED', 'user:read', ['user:read:admin']],
    ['ADMIN_MANAGED', 'meeting_token:read:local_recording', ['meeting_token:read:admin:local_recording']],
  ])(
    'an app of kind %s cannot have %s, and is told the same scope at its own level',
    async (kind, name, suggestions) => {
      expect(await register(kind, [name])).toMatchObject({
        scopes: [{ name, problem: 'WRONG_LEVEL_FOR_APP_KIND', suggestions }],
      });
    },
  );

  test.each([
    ['USER_MANAGED', ['user:read:user', 'user:read', 'imchat:bot', 'user_profile']],
    [
      'ADMIN_MANAGED',
      ['user:read:user:admin', 'account:read:list_sub_accounts:master', 'account:master', 'imchat:bot'],
    ],
    ['SERVER_TO_SERVER', ['user:read:user:admin', 'user:read:user', 'account:master']],
  ])('an app of kind %s can have %j', async (kind, names) => {
    const { providerApp } = await register(kind, names);
    expect(providerApp.scopes.map(({ name }: { name: string }) => name)).toEqual(names);
  });

  test('an update is checked for the kind that the app has, and changes nothing when refused', async () => {
    const { providerApp } = await register('USER_MANAGED', ['user:read:user']);
    const { id } = providerApp;
    const refused = await update({ id, name: 'B', scopes: named(['meeting:write:meeting:admin', 'zoom:read:mind']) });
    expect(refused).toMatchObject({
      __typename: 'UnknownScopesError',
      scopes: [
        {
          name: 'meeting:write:meeting:admin',
          problem: 'WRONG_LEVEL_FOR_APP_KIND',
          suggestions: ['meeting:write:meeting'],
        },
        { name: 'zoom:read:mind', problem: 'NOT_IN_CATALOGUE' },
      ],
    });
    const { node: now } = await server.data('query ($id: ID!) { node(id: $id) { ... on ProviderApp { name } } }', {
      id,
    });
    expect(now).toEqual({ name: 'A' });
    const taken = await update({ id, scopes: named(['zoom:read:mind']), acceptUnknownScopes: true });
    expect(taken.providerApp.scopes).toMatchObject([
      { name: 'zoom:read:mind', description: 'Read mind (zoom).', level: 'USER', vocabulary: 'GRANULAR' },
    ]);
    expect(await node(taken.providerApp.scopes[0].id)).toMatchObject({ name: 'zoom:read:mind', covers: [] });
  });

  test.each(['', ' ', 'two words', 'nul\0', 'köln', '"', 'x'.repeat(121)])(
    'the name %j is taken under no circumstances: no token could carry it',
    async (name) => {
      const answer = await register('USER_MANAGED', ['user:read:user', name], { acceptUnknownScopes: true });
      expect(answer).toEqual({ __typename: 'InvalidInputError', path: ['input', 'scopes', '1', 'name'] });
    },
  );

  test('any number of wrong names is answered in full and at once', async () => {
    const names = Array.from({ length: 300 }, (_, index) => `meeting:read:meetings${index}`);
    const start = performance.now();
    const { scopes: refused } = await register('USER_MANAGED', names);
    expect(performance.now() - start).toBeLessThan(5_000);
    expect(refused.map(({ name }: { name: string }) => name)).toEqual(names);
    expect(refused[0].suggestions).toContain('meeting:read:meeting');
  });
});

/** An app that has these scopes at Zoom, and is registered here with those. */
async function makeApp(atZoom: readonly string[], registered: readonly string[], patch: Record<string, unknown> = {}) {
  const { control } = server.sandbox;
  const app = control.createApp({
    name: 'A',
    usage: 'USER_OPERATION',
    scopes: atZoom.map((name) => ({ scope: name, optional: false })),
  });
  const { clientId, clientSecret } = app;
  const { id, redirectUri } = await registerProviderApp(server, {
    name: 'A',
    kind: 'USER_MANAGED',
    clientId,
    clientSecret,
    scopes: registered,
    ...patch,
  });
  control.updateApp(clientId, { redirectUris: [redirectUri], published: true });
  return id;
}

async function connectUser(appId: string) {
  const tenantId = await createTenant(server);
  const session = await connect(server, 'beginAuthorization', { tenantId, userId: 'u', appId }, newZoomUser(server));
  return { tenantId, grant: session.grant };
}

describe('comparing what is required with what was granted', () => {
  const requiring = (tenantId: string, requiredScopes: readonly string[]) =>
    credential(server, { tenantId, credentialFor: 'USER', userId: 'u', requiredScopes });

  test('an app registered with granular scopes lacks none that the classic ones of a grant cover', async () => {
    const app = await makeApp(['user:read', 'meeting:read'], ['user:read:user', 'meeting:read:list_meetings']);
    const { tenantId, grant } = await connectUser(app);
    expect(grant).toMatchObject({
      health: { status: 'HEALTHY' },
      grantedScopes: named(['user:read', 'meeting:read']),
      missingScopes: [],
    });
    expect(await requiring(tenantId, ['meeting:read:list_meetings', 'user:read'])).toMatchObject({
      __typename: 'Credential',
    });
    expect(await requiring(tenantId, ['meeting:write:meeting', 'meeting:read:meeting'])).toMatchObject({
      __typename: 'MissingScopesError',
      missingScopes: ['meeting:write:meeting'],
    });
    // The token may say so; the level of a user grants nothing of an account.
    expect(await requiring(tenantId, ['user:read:user:admin'])).toMatchObject({ __typename: 'MissingScopesError' });
  });

  test('an app registered with classic scopes lacks none whose granular ones were all granted', async () => {
    const { covers } = await scope('user:read');
    const granular: string[] = covers.map(({ name }: { name: string }) => name);
    const whole = await connectUser(await makeApp(granular, ['user:read']));
    expect(whole.grant).toMatchObject({ health: { status: 'HEALTHY' }, missingScopes: [] });
    expect(await requiring(whole.tenantId, ['user:read'])).toMatchObject({ __typename: 'Credential' });

    const part = await connectUser(await makeApp(granular.slice(1), ['user:read']));
    expect(part.grant).toMatchObject({
      health: { status: 'DEGRADED', reason: 'SCOPES_MISSING' },
      missingScopes: named(['user:read']),
    });
    expect(await requiring(part.tenantId, ['user:read'])).toMatchObject({ missingScopes: ['user:read'] });
  });

  test('an optional scope that was not granted is not missing', async () => {
    const appId = await makeApp(['user:read:user'], ['user:read:user']);
    await update({
      id: appId,
      scopes: [{ name: 'user:read:user' }, { name: 'meeting:read:list_meetings', optional: true }],
    });
    const { tenantId, grant } = await connectUser(appId);
    expect(grant).toMatchObject({ health: { status: 'HEALTHY' }, missingScopes: [] });
    // Whoever needs it for a call still learns that it is not there.
    expect(await requiring(tenantId, ['meeting:read:list_meetings'])).toMatchObject({
      missingScopes: ['meeting:read:list_meetings'],
    });
  });

  test('a scope that Zoom grants and the catalogue does not know is shown, described by its name', async () => {
    const { grant } = await connectUser(
      await makeApp(['user:read:user', 'meeting:read:list_dreams'], ['user:read:user']),
    );
    const { node: found } = await server.data(
      `query ($id: ID!) { node(id: $id) { ... on UserConnection { grantedScopes { ${SCOPE} } missingScopes { name } } } }`,
      { id: grant.id },
    );
    expect(found.missingScopes).toEqual([]);
    expect(found.grantedScopes).toMatchObject([
      { name: 'user:read:user', description: 'Read the profile of a user.' },
      {
        name: 'meeting:read:list_dreams',
        description: 'List dreams (meeting).',
        level: 'USER',
        vocabulary: 'GRANULAR',
        resource: 'meeting',
        covers: [],
      },
    ]);
    for (const shown of found.grantedScopes) expect(await node(shown.id)).toEqual(shown);
  });

  test('a scope that an app requires by an unknown name is missing until it is granted by that name', async () => {
    const names = ['user:read:user', 'meeting:read:dreams'];
    const without = await connectUser(await makeApp(['user:read'], names, { acceptUnknownScopes: true }));
    expect(without.grant).toMatchObject({
      health: { status: 'DEGRADED', reason: 'SCOPES_MISSING' },
      missingScopes: named(['meeting:read:dreams']),
    });
    const granted = await connectUser(await makeApp(names, names, { acceptUnknownScopes: true }));
    expect(granted.grant).toMatchObject({ health: { status: 'HEALTHY' }, missingScopes: [] });
  });
});
