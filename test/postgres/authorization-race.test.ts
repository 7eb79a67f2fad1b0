import { expect, test } from 'vitest';
import { sessionOf, storedOf, tokenRequests } from '../support/consent-trip.js';
import { startInstances, type Instance } from '../support/instances.js';
import {
  begin,
  comeBack,
  complete,
  consent,
  createTenant,
  open,
  registerApp,
  sandboxUser,
  type RegisteredApp,
} from '../support/story.js';

const instances = await startInstances(3);
const [one, two] = instances as [Instance, Instance, Instance];
const member = sandboxUser(one, 'Member');

/** The same request at one of the servers. */
const at = (instance: Instance, url: string): string => `${instance.address}${url.slice(one.url.length)}`;

/** `count` of them, spread over the servers. */
const spread = <T>(count: number, run: (instance: Instance) => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: count }, (_, index) => run(instances[index % instances.length] as Instance)));

async function prepare(): Promise<{ app: RegisteredApp; input: { tenantId: string; userId: string; appId: string } }> {
  const app = await registerApp(one, 'USER_MANAGED');
  return { app, input: { tenantId: await createTenant(one), userId: 'user_1', appId: app.id } };
}

test('of 30 identical answers at three servers exactly one is taken', async () => {
  const { app, input } = await prepare();
  for (let round = 0; round < 5; round += 1) {
    const trip = await begin(one, 'beginAuthorization', input);
    const callback = await consent(trip, member.id);
    const answers = await spread(30, (instance) => open(new Map(trip.jar), at(instance, callback)));
    expect(answers.filter(({ status }) => status === 303)).toHaveLength(1);
    expect(answers.filter(({ status }) => status === 400)).toHaveLength(29);
    expect(tokenRequests(one, app)).toBe(round);
    const taken = answers.find(({ status }) => status === 303)?.headers.get('location') ?? '';
    const connectCode = new URL(taken).searchParams.get('connectCode');
    expect(await complete(two, connectCode, 'user_1')).toMatchObject({ status: 'COMPLETED' });
  }
});

test('of 30 completions at three servers exactly one redeems the code', async () => {
  const { app, input } = await prepare();
  for (let round = 1; round <= 5; round += 1) {
    const trip = await begin(one, 'beginAuthorization', input);
    const { connectCode } = await comeBack(trip, await consent(trip, member.id));
    const answers = await spread(30, (instance) => complete(instance, connectCode, 'user_1'));
    expect(answers.filter(({ status }) => status === 'COMPLETED')).toHaveLength(1);
    expect(answers.filter(({ __typename }) => __typename === 'NotFoundError')).toHaveLength(29);
    expect(tokenRequests(one, app)).toBe(round);
  }
  expect(await storedOf(one, input.tenantId)).toEqual({ grants: 1, credentials: 1, revocations: 0 });
});

test('of the right user and an intruder who complete at once one is heard, and the code is redeemed at most once', async () => {
  const { app, input } = await prepare();
  for (let round = 0; round < 10; round += 1) {
    const before = tokenRequests(one, app);
    const trip = await begin(one, 'beginAuthorization', input);
    const { connectCode } = await comeBack(trip, await consent(trip, member.id));
    const answers = await spread(6, (instance) =>
      complete(instance, connectCode, instance === one ? 'user_1' : 'intruder'),
    );
    const heard = answers.filter(({ __typename }) => __typename !== 'NotFoundError');
    expect(heard).toHaveLength(1);
    const { status, failure } = await sessionOf(two, trip);
    expect(heard[0]).toMatchObject({ status, failure });
    expect([status, failure, tokenRequests(one, app) - before]).toEqual(
      status === 'COMPLETED' ? ['COMPLETED', null, 1] : ['FAILED', 'INITIATOR_MISMATCH', 0],
    );
  }
});

test('a trip may start at one server, return to another and be completed at a third', async () => {
  const { input } = await prepare();
  const [first, second, third] = instances as [Instance, Instance, Instance];
  const trip = await begin(first, 'beginAuthorization', input);
  const callback = await consent({ ...trip, startUrl: at(second, trip.startUrl) }, member.id);
  const response = await open(trip.jar, at(third, callback));
  const connectCode = new URL(response.headers.get('location') ?? '').searchParams.get('connectCode');
  expect(await complete(first, connectCode, 'user_1')).toMatchObject({ status: 'COMPLETED' });
});

test('two tenants that connect one Zoom user at once leave exactly one live connection', async () => {
  const app = await registerApp(one, 'USER_MANAGED');
  for (let round = 0; round < 5; round += 1) {
    const tenants = [await createTenant(one), await createTenant(one)];
    const codes: (string | null)[] = [];
    for (const tenantId of tenants) {
      const trip = await begin(one, 'beginAuthorization', { tenantId, userId: 'user_1', appId: app.id });
      codes.push((await comeBack(trip, await consent(trip, member.id))).connectCode);
    }
    const answers = await Promise.all(
      codes.map((code, index) => complete(instances[index] as Instance, code, 'user_1')),
    );
    const health = await Promise.all(
      answers
        .filter(({ status }) => status === 'COMPLETED')
        .map(async ({ grant }) => {
          const { node } = await one.data(
            `query ($id: ID!) { node(id: $id) { ... on UserConnection { health { status reason } } } }`,
            { id: grant.id },
          );
          return node.health.reason as string;
        }),
    );
    expect(health.filter((reason) => reason !== 'SUPERSEDED')).toHaveLength(1);
  }
});
