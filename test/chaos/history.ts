import sql, { raw } from 'sql-template-tag';
import type { Database } from '../../src/database/database.js';

/**
 * What the database itself notes down of every change, in the transaction that makes it: states of credentials, and
 * for each grant the changes of health beside the events. Lives in a schema of its own, so the product does not see it.
 */
const RECORDER = [
  `CREATE SCHEMA chaos`,
  `CREATE TABLE chaos.credential_step (
    id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), grant_id uuid NOT NULL, operation text NOT NULL,
    old_fence int, new_fence int, old_version int, new_version int, old_state text, new_state text)`,
  `CREATE TABLE chaos.health_step (
    id bigserial PRIMARY KEY, transaction bigint NOT NULL DEFAULT txid_current(), grant_id uuid, kind text NOT NULL)`,
  `CREATE FUNCTION chaos.note_credential() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos.credential_step (grant_id, operation, old_fence, new_fence, old_version, new_version, old_state, new_state)
    VALUES (coalesce(NEW.grant_id, OLD.grant_id), TG_OP, OLD.fence, NEW.fence, OLD.version, NEW.version,
      OLD.refresh_state::text, NEW.refresh_state::text);
    RETURN NULL; END $$`,
  `CREATE FUNCTION chaos.note_health() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'INSERT' OR OLD.health_reason <> NEW.health_reason OR OLD.health_status <> NEW.health_status
      OR OLD.authorized_at <> NEW.authorized_at
    THEN INSERT INTO chaos.health_step (grant_id, kind) VALUES (NEW.id, 'change'); END IF;
    RETURN NULL; END $$`,
  `CREATE FUNCTION chaos.note_event() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos.health_step (grant_id, kind) VALUES (NEW.grant_id, 'event');
    RETURN NULL; END $$`,
  `CREATE TRIGGER chaos_credential AFTER INSERT OR UPDATE OR DELETE ON credential
    FOR EACH ROW EXECUTE FUNCTION chaos.note_credential()`,
  `CREATE TRIGGER chaos_health AFTER INSERT OR UPDATE ON provider_grant
    FOR EACH ROW EXECUTE FUNCTION chaos.note_health()`,
  `CREATE TRIGGER chaos_event AFTER INSERT ON health_event FOR EACH ROW EXECUTE FUNCTION chaos.note_event()`,
];

/** Has the database note down its history from here on. */
export async function recordHistory(db: Database): Promise<void> {
  for (const statement of RECORDER) await db.query(raw(statement));
}

/** Steps in which a fence or a version went back, or a version jumped. */
export async function backwardSteps(db: Database): Promise<string[]> {
  const rows = await db.query<{ grantId: string; step: string }>(sql`
    SELECT grant_id AS "grantId", format('fence %s to %s, version %s to %s', old_fence, new_fence, old_version, new_version) AS step
    FROM chaos.credential_step WHERE operation = 'UPDATE'
      AND (new_fence < old_fence OR new_version NOT IN (old_version, old_version + 1)) ORDER BY id LIMIT 5`);
  return rows.map(({ grantId, step }) => `${grantId}: ${step}`);
}

/** Transactions that changed a grant's health without exactly one event, or made an event without a change. */
export async function unevenTransitions(db: Database): Promise<string[]> {
  const rows = await db.query<{ text: string }>(sql`
    SELECT format('grant %s: %s changes, %s events in one transaction', grant_id,
      count(*) FILTER (WHERE kind = 'change'), count(*) FILTER (WHERE kind = 'event')) AS text
    FROM chaos.health_step GROUP BY transaction, grant_id
    HAVING count(*) FILTER (WHERE kind = 'event') <> (count(*) FILTER (WHERE kind = 'change') > 0)::int LIMIT 5`);
  const gaps = await db.query<{ text: string }>(sql`
    SELECT format('tenant %s: %s events, sequence at %s', t.id, count(e.id), t.event_sequence) AS text
    FROM tenant t LEFT JOIN health_event e ON e.tenant_id = t.id GROUP BY t.id
    HAVING count(e.id) <> t.event_sequence OR count(e.id) <> coalesce(max(e.sequence), 0) LIMIT 5`);
  return [...rows, ...gaps].map(({ text }) => text);
}

/** How often the credential was leased: its fence grew with its version unchanged. */
export async function leasesOf(db: Database, grantId: string): Promise<number> {
  const [row] = await db.query<{ count: number }>(sql`
    SELECT count(*)::int AS count FROM chaos.credential_step
    WHERE grant_id = ${grantId}::uuid AND operation = 'UPDATE' AND new_fence > old_fence AND new_version = old_version`);
  return row?.count ?? 0;
}
