import sql from 'sql-template-tag';
import type { Sql, SqlStatement } from '../database/database.js';
import { meetingIdOrNull } from '../zoom/api.js';

/**
 * The meeting directory: which meeting numbers belong to which hosts, for each grant that could act for them. Every row
 * is as new as the newest news of it, whatever order the news come in; of news from the same moment, the end wins.
 */

/** How far the provider's clock may be ahead before its times are taken for wrong. */
const MAX_AHEAD_SECONDS = 300;
/** A meeting lasts 30 hours at most; for so long one that no list shows may still be live. */
const LONGEST_MEETING_HOURS = 30;
/** How long what is gone is remembered. The provider repeats a delivery for 85 minutes. */
const GONE_DAYS = 2;

/** What is written into one grant's part of the directory. */
export interface DirectoryNews {
  grantId: string;
  tenantId: string;
  meetingId: string;
  hostUserId: string;
  isPersonal: boolean;
  isListed: boolean;
  isGone: boolean;
}

/** Writes news of meetings, all from the same moment. In the order of their keys, so that two writers do not deadlock. */
export async function writeDirectory(tx: Sql, news: readonly DirectoryNews[], asOf: Date): Promise<void> {
  if (news.length === 0) return;
  // One statement may change a row once only.
  const unique = [...new Map(news.map((each) => [`${each.grantId}/${each.meetingId}`, each])).values()];
  const column = <Name extends keyof DirectoryNews>(name: Name) => unique.map((each) => each[name]);
  await tx.query(sql`
    INSERT INTO hosted_meeting AS known
      (grant_id, tenant_id, meeting_id, host_user_id, is_personal, is_listed, is_gone, as_of)
    SELECT grant_id, tenant_id, meeting_id, host_user_id, is_personal, is_listed, is_gone, ${asOf}::timestamptz
    FROM unnest(${column('grantId')}::uuid[], ${column('tenantId')}::uuid[], ${column('meetingId')}::text[],
      ${column('hostUserId')}::text[], ${column('isPersonal')}::boolean[], ${column('isListed')}::boolean[],
      ${column('isGone')}::boolean[])
      AS news(grant_id, tenant_id, meeting_id, host_user_id, is_personal, is_listed, is_gone)
    ORDER BY grant_id, meeting_id
    ON CONFLICT (grant_id, meeting_id) DO UPDATE SET host_user_id = excluded.host_user_id,
      is_personal = excluded.is_personal OR (known.is_personal AND known.host_user_id = excluded.host_user_id),
      is_listed = excluded.is_listed OR known.is_listed, is_gone = excluded.is_gone, as_of = excluded.as_of
    WHERE (known.as_of, known.is_gone, known.host_user_id) < (excluded.as_of, excluded.is_gone, excluded.host_user_id)`);
}

/** A host has this personal meeting number since then, and no other that is older. */
export async function writePersonalMeeting(
  tx: Sql,
  host: { grantId: string; tenantId: string; hostUserId: string },
  meetingId: string,
  asOf: Date,
): Promise<void> {
  const others = sql`grant_id = ${host.grantId}::uuid AND host_user_id = ${host.hostUserId}
    AND meeting_id <> ${meetingId} AND is_personal AND NOT is_gone`;
  const [newer] = await tx.query(sql`SELECT 1 FROM hosted_meeting WHERE ${others} AND as_of > ${asOf} LIMIT 1`);
  const row = { ...host, meetingId, isPersonal: true, isListed: false, isGone: newer !== undefined };
  await writeDirectory(tx, [row], asOf);
  await tx.query(sql`UPDATE hosted_meeting SET is_gone = true, as_of = ${asOf} WHERE ${others} AND as_of < ${asOf}`);
}

/**
 * A round of listing a host's meetings has ended: what was listed before and was not this time is gone, and so is what
 * no list has shown for longer than a meeting lasts.
 */
export async function dropUnlisted(
  tx: Sql,
  host: { grantId: string; hostUserId: string },
  startedAt: Date,
): Promise<void> {
  await tx.query(sql`
    UPDATE hosted_meeting SET is_gone = true, as_of = ${startedAt}
    WHERE grant_id = ${host.grantId}::uuid AND host_user_id = ${host.hostUserId} AND NOT is_personal AND NOT is_gone
      AND as_of < ${startedAt}::timestamptz
        - CASE WHEN is_listed THEN interval '0' ELSE make_interval(hours => ${LONGEST_MEETING_HOURS}) END`);
}

/** Zoom says of a number in the directory that it is no meeting (any more). */
export async function dropMeeting(tx: Sql, grantIds: readonly string[], meetingId: string): Promise<void> {
  await tx.query(sql`
    UPDATE hosted_meeting SET is_gone = true, as_of = now()
    WHERE grant_id = ANY(${grantIds}::uuid[]) AND meeting_id = ${meetingId} AND NOT is_gone AND as_of < now()`);
}

/** Removes all of some hosts, who are no longer in the account. `hosts` is a query of their ids. */
export async function dropHosts(tx: Sql, grantId: string, hosts: SqlStatement): Promise<void> {
  await tx.query(sql`
    UPDATE hosted_meeting SET is_gone = true, as_of = now()
    WHERE grant_id = ${grantId}::uuid AND host_user_id IN (${hosts}) AND NOT is_gone`);
}

/** Removes a grant's whole part of the directory: its provider data must not outlive it. */
export async function forgetMeetings(tx: Sql, grantId: string): Promise<void> {
  await tx.query(sql`DELETE FROM hosted_meeting WHERE grant_id = ${grantId}::uuid`);
}

/** The grant is another provider user's now: what the former one left is removed. */
export async function forgetOtherHosts(tx: Sql, grantId: string, hostUserId: string): Promise<void> {
  await tx.query(sql`
    DELETE FROM hosted_meeting WHERE grant_id = ${grantId}::uuid AND host_user_id <> ${hostUserId}`);
}

/** What is gone need not be remembered for ever. */
export async function purgeGoneMeetings(tx: Sql): Promise<void> {
  await tx.query(sql`
    DELETE FROM hosted_meeting WHERE is_gone AND as_of < now() - make_interval(days => ${GONE_DAYS})`);
}

/** What an event of the provider's tells the directory, as it was read from a verified webhook. */
export type DirectoryEvent =
  | {
      name: 'meeting.created' | 'meeting.updated' | 'meeting.deleted';
      accountId: string;
      /** Digits. */
      meetingId: string;
      /** Null: not told, as in many updates. */
      hostId: string | null;
      /** It is about one occurrence of a series. */
      isOccurrence: boolean;
      at: Date | null;
    }
  | { name: 'user.updated'; accountId: string; userId: string; personalMeetingId?: string; at: Date | null }
  | { name: 'user.deactivated' | 'user.deleted'; accountId: string; userId: string; at: Date | null };

interface ConcernedGrant {
  grantId: string;
  tenantId: string;
}

/**
 * Brings the directory up to what an event says, in the caller's transaction. Events may come in any order and more than
 * once. One that tells no host, or an account or host that no grant of the app reaches, has no effect.
 *
 * @param app whose webhook it came to: only its own grants are concerned.
 * @param event `at`: when it happened by the provider's clock; null counts as now.
 * @returns how many grants are concerned.
 * @see https://developers.zoom.us/docs/api/meetings/events/
 */
export async function applyMeetingEvent(tx: Sql, app: { id: string }, event: DirectoryEvent): Promise<number> {
  const news = newsOf(event);
  if (news === null) return 0;
  const { hostUserId, meetingId } = news;
  const grants = await tx.query<ConcernedGrant>(sql`
    SELECT id AS "grantId", tenant_id AS "tenantId" FROM provider_grant
    WHERE app_id = ${app.id}::uuid AND provider_account_id = ${event.accountId} AND health_status <> 'REVOKED'
      AND (kind = 'INSTALLATION' OR provider_user_id = ${hostUserId})
    ORDER BY id`);
  if (grants.length === 0) return 0;
  const asOf = await momentOf(tx, event.at);
  for (const grant of grants) {
    if (meetingId === null) await dropHosts(tx, grant.grantId, sql`SELECT ${hostUserId}::text`);
    else if (news.isPersonal) await writePersonalMeeting(tx, { ...grant, hostUserId }, meetingId, asOf);
    else await writeDirectory(tx, [{ ...grant, ...news, meetingId, isListed: false }], asOf);
  }
  return grants.length;
}

/** What an event tells of which host; `meetingId` null: the host is gone. Null where it tells nothing. */
function newsOf(event: DirectoryEvent) {
  switch (event.name) {
    case 'user.deleted':
      return { hostUserId: event.userId, meetingId: null, isPersonal: false, isGone: true };
    case 'user.deactivated':
      // Who cannot sign in is still the host of what was planned.
      return null;
    case 'user.updated': {
      const meetingId = meetingIdOrNull(event.personalMeetingId);
      return meetingId === null ? null : { hostUserId: event.userId, meetingId, isPersonal: true, isGone: false };
    }
    default: {
      const meetingId = meetingIdOrNull(event.meetingId);
      const isGone = event.name === 'meeting.deleted';
      // A change that comes without its host is one of a meeting that is known. A series outlives its occurrences.
      if (meetingId === null || event.hostId === null || (isGone && event.isOccurrence)) return null;
      return { hostUserId: event.hostId, meetingId, isPersonal: false, isGone };
    }
  }
}

/** When an event happened, by the provider; now, where it does not say or says what cannot be. */
async function momentOf(tx: Sql, eventTs: Date | null): Promise<Date> {
  const told = eventTs !== null && eventTs.getUTCFullYear() >= 2000 && eventTs.getUTCFullYear() < 2100 ? eventTs : null;
  const [row] = await tx.query<{ at: Date }>(sql`
    SELECT date_trunc('milliseconds', least(coalesce(${told}::timestamptz, now()),
      now() + make_interval(secs => ${MAX_AHEAD_SECONDS}))) AS at`);
  if (row === undefined) throw new Error('The database did not tell the time.');
  return row.at;
}
