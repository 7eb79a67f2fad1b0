import type { GraphQLObjectType } from 'graphql';
import sql from 'sql-template-tag';
import { schema } from '../../src/graphql/schema.js';
import type { Answer, TestServer } from './server.js';

const fields = (schema.getMutationType() as GraphQLObjectType).getFields();

export const MUTATIONS: readonly string[] = Object.keys(fields);

/** Runs a mutation by its name and asks for nothing but what became of it. */
export function mutate(
  server: Pick<TestServer, 'graphql'>,
  name: string,
  input: Record<string, unknown>,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const type = String(fields[name]?.args[0]?.type);
  const query = `mutation ($input: ${type}) { ${name}(input: $input) { __typename ... on Error { message } } }`;
  return server.graphql(query, { input }, headers);
}

export interface Listed {
  id: string;
  cursor: string;
  occurredAt: string;
  lastOccurredAt: string;
  count: number;
  action: string;
  outcome: string;
  reason: string | null;
  principalKind: string;
  principalId: string;
  externalUserId: string | null;
  clientAddress: string | null;
  subject: string | null;
  credentialVersion: number | null;
  tenant: { externalId: string } | null;
  grant: { id: string } | null;
}

export const AUDIT_EVENTS = `query ($first: Int, $last: Int, $after: String, $filter: AuditFilter) {
  auditEvents(first: $first, last: $last, after: $after, filter: $filter) {
    edges { cursor node {
      id cursor occurredAt lastOccurredAt count action outcome reason principalKind principalId externalUserId
      clientAddress subject credentialVersion tenant { externalId } grant { id }
    } }
    pageInfo { hasNextPage endCursor }
  }
}`;

/** Every event that matches, page by page, behind a cursor if one is given. */
export async function auditEvents(
  server: Pick<TestServer, 'data'>,
  filter: Record<string, unknown> = {},
  cursor: string | null = null,
): Promise<Listed[]> {
  const found: Listed[] = [];
  let after = cursor;
  for (;;) {
    const { auditEvents: page } = await server.data(AUDIT_EVENTS, { first: 100, after, filter });
    found.push(...page.edges.map(({ node }: { node: Listed }) => node));
    if (!page.pageInfo.hasNextPage) return found;
    after = page.pageInfo.endCursor;
  }
}

/** The one that was recorded last of those that match. */
export async function newestEvent(
  server: Pick<TestServer, 'data'>,
  filter: Record<string, unknown> = {},
): Promise<Listed | undefined> {
  const { auditEvents: page } = await server.data(AUDIT_EVENTS, { last: 1, filter });
  return page.edges[0]?.node;
}

/** From now on the table takes no events, until the returned function is called. */
export async function refuseEvents({ db }: Pick<TestServer, 'db'>): Promise<() => Promise<void>> {
  await db.query(sql`
    CREATE OR REPLACE FUNCTION refuse_audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'refused by the test' USING ERRCODE = '42501'; END $$`);
  await db.query(sql`
    CREATE TRIGGER refuse_audit BEFORE INSERT ON audit_event FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit()`);
  return async () => void (await db.query(sql`DROP TRIGGER refuse_audit ON audit_event`));
}
