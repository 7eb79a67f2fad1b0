import sql from 'sql-template-tag';
import type { Database } from '../../src/database/database.js';
import { startReceiver, type Receiver } from './webhook-receiver.js';
import type { Caller } from './principals.js';

type Asker = Pick<Caller, 'data'>;

const ENDPOINT = 'id url description status disabledReason disabledAt failingSince formerSecretRetiresAt';

const mutation = (name: string, input: string, selection: string) => `mutation ($input: ${input}!) {
  ${name}(input: $input) {
    __typename
    ... on ${name.charAt(0).toUpperCase()}${name.slice(1)}Success { ${selection} }
    ${name.startsWith('delete') ? '' : '... on InvalidInputError { path }'}
    ... on Error { message }
  }
}`;

async function ask(asker: Asker, name: string, selection: string, input: Record<string, unknown>): Promise<any> {
  const type = `${name.charAt(0).toUpperCase()}${name.slice(1)}Input`;
  return (await asker.data(mutation(name, type, selection), { input }))[name];
}

export const createEndpoint = (asker: Asker, input: Record<string, unknown>) =>
  ask(asker, 'createWebhookEndpoint', `webhookEndpoint { ${ENDPOINT} secret }`, input);
export const updateEndpoint = (asker: Asker, input: Record<string, unknown>) =>
  ask(asker, 'updateWebhookEndpoint', `webhookEndpoint { ${ENDPOINT} }`, input);
export const rotateSecret = (asker: Asker, input: Record<string, unknown>) =>
  ask(asker, 'rotateWebhookEndpointSecret', `webhookEndpoint { ${ENDPOINT} secret }`, input);
export const deleteEndpoint = (asker: Asker, id: string) => ask(asker, 'deleteWebhookEndpoint', 'deletedId', { id });
export const replay = (asker: Asker, input: Record<string, unknown>) =>
  ask(asker, 'replayWebhookDeliveries', 'webhookReplay { count }', input);

export interface TestEndpoint {
  id: string;
  rowId: string;
  receiver: Receiver;
}

/** An endpoint with a backend behind it that knows its secret. */
export async function connectReceiver(
  asker: Asker,
  input: Record<string, unknown> = {},
  receiver?: Receiver,
): Promise<TestEndpoint> {
  const backend = receiver ?? (await startReceiver());
  const { webhookEndpoint, message } = await createEndpoint(asker, { url: backend.url, ...input });
  if (webhookEndpoint === undefined) throw new Error(`No endpoint: ${message}`);
  backend.secrets.push(webhookEndpoint.secret);
  return { id: webhookEndpoint.id, rowId: rowOf(webhookEndpoint.id), receiver: backend };
}

export const rowOf = (id: string) => Buffer.from(id, 'base64url').toString('utf8').split(':')[1] ?? '';

/** The endpoint as the API shows it, with its deliveries. */
export async function endpointOf(asker: Asker, id: string): Promise<any> {
  const { node } = await asker.data(
    `query ($id: ID!) { node(id: $id) { ... on WebhookEndpoint { ${ENDPOINT}
      deliveries(first: 100) { edges { node { id status attemptCount nextAttemptAt deliveredAt
        event { id reason } attempts { httpStatus failure durationMs } } } } } } }`,
    { id },
  );
  return node === null ? null : { ...node, deliveries: node.deliveries.edges.map((edge: any) => edge.node) };
}

/** The waiting time of what is still to be delivered is over, and so is a silence that was asked for. */
export async function endDeliveryWait(db: Database, { rowId }: Pick<TestEndpoint, 'rowId'>): Promise<void> {
  await db.query(sql`UPDATE webhook_endpoint SET paused_until = NULL WHERE id = ${rowId}::uuid`);
  await db.query(sql`
    UPDATE webhook_delivery SET next_attempt_at = now()
    WHERE endpoint_id = ${rowId}::uuid AND next_attempt_at IS NOT NULL AND lease_until IS NULL`);
}

/** The leases of attempts that nobody is at any more have run out. */
export async function endDeliveryLeases(db: Database, { rowId }: Pick<TestEndpoint, 'rowId'>): Promise<void> {
  await db.query(sql`
    UPDATE webhook_delivery SET next_attempt_at = now(), lease_until = now()
    WHERE endpoint_id = ${rowId}::uuid AND lease_until IS NOT NULL`);
}
