import { isMembers, type Members } from './body.js';
import { readTime, type ZoomWebhookEvent } from './webhook.js';

/** Someone removed the app at Zoom: every grant of this user in this account is dead since then. */
export interface AppDeauthorizedEvent {
  name: 'app_deauthorized';
  accountId: string;
  userId: string;
  clientId: string;
  /** When it was removed; where that is not told, when the event says it happened. Null: neither is told. */
  at: Date | null;
}

/** A user's profile changed. Zoom sends what changed and leaves out the rest, which is undefined here. */
export interface UserUpdatedEvent {
  name: 'user.updated';
  accountId: string;
  userId: string;
  email?: string;
  displayName?: string;
  /** Digits of the new personal meeting id. */
  personalMeetingId?: string;
  at: Date | null;
}

/** A user can no longer sign in, or left the account. */
export interface UserRemovedEvent {
  name: 'user.deactivated' | 'user.deleted';
  accountId: string;
  userId: string;
  at: Date | null;
}

/** What became of a meeting. Holds what finds its host, and neither its topic nor anything that opens it. */
export interface MeetingEvent {
  name: 'meeting.created' | 'meeting.updated' | 'meeting.deleted';
  accountId: string;
  /** Digits of the meeting number. */
  meetingId: string;
  uuid: string | null;
  /** Zoom leaves it out of many updates. */
  hostId: string | null;
  /** Digits of the personal meeting id that the meeting is held under, where the event names one. */
  personalMeetingId: string | null;
  /** The change is about one occurrence of a series; the meeting itself stays. */
  isOccurrence: boolean;
  at: Date | null;
}

export type ZoomEvent = AppDeauthorizedEvent | UserUpdatedEvent | UserRemovedEvent | MeetingEvent;

/**
 * Reads the events that have a meaning here. Null for any other, and for one that does not say whom it is about.
 *
 * Pure. Only what an effect needs is taken over; nothing else of the payload leaves this function. Ids are texts of 1
 * to 128 visible characters, as Zoom's are.
 *
 * @see https://developers.zoom.us/docs/api/webhooks/
 */
export function readEvent(envelope: ZoomWebhookEvent): ZoomEvent | null {
  switch (envelope.event) {
    case 'app_deauthorized':
      return readDeauthorization(envelope);
    case 'user.updated':
      return readUserUpdate(envelope);
    case 'user.deactivated':
    case 'user.deleted':
      return readUserRemoval(envelope, envelope.event);
    case 'meeting.created':
    case 'meeting.updated':
    case 'meeting.deleted':
      return readMeeting(envelope, envelope.event);
    default:
      return null;
  }
}

/** The payload's own `signature` is not documented and proves nothing. */
function readDeauthorization({ payload, eventTs }: ZoomWebhookEvent): AppDeauthorizedEvent | null {
  const [accountId, userId, clientId] = [payload['account_id'], payload['user_id'], payload['client_id']].map(idOf);
  if (!accountId || !userId || !clientId) return null;
  const at = plausible(readTime(payload['deauthorization_time'])) ?? plausible(eventTs);
  return { name: 'app_deauthorized', accountId, userId, clientId, at };
}

function readUserUpdate(envelope: ZoomWebhookEvent): UserUpdatedEvent | null {
  const about = subjectOf(envelope);
  const userId = idOf(about?.object['id']);
  if (about === null || !userId) return null;
  const { object, accountId, at } = about;
  const email = textOf(object['email']);
  const displayName = textOf(object['display_name']) ?? fullName(object);
  const personalMeetingId = digitsOf(object['pmi']);
  return {
    name: 'user.updated',
    accountId,
    userId,
    ...(email === null ? {} : { email }),
    ...(displayName === null ? {} : { displayName }),
    ...(personalMeetingId === null ? {} : { personalMeetingId }),
    at,
  };
}

function readUserRemoval(envelope: ZoomWebhookEvent, name: UserRemovedEvent['name']): UserRemovedEvent | null {
  const about = subjectOf(envelope);
  const userId = idOf(about?.object['id']);
  return about === null || !userId ? null : { name, accountId: about.accountId, userId, at: about.at };
}

function readMeeting(envelope: ZoomWebhookEvent, name: MeetingEvent['name']): MeetingEvent | null {
  const about = subjectOf(envelope);
  const meetingId = digitsOf(about?.object['id']);
  if (about === null || meetingId === null) return null;
  const { object, accountId, at } = about;
  const { operation, scope } = envelope.payload;
  return {
    name,
    accountId,
    meetingId,
    uuid: idOf(object['uuid']),
    hostId: idOf(object['host_id']),
    personalMeetingId: digitsOf(object['pmi']),
    isOccurrence: operation === 'single' || scope === 'single',
    at,
  };
}

function subjectOf({ payload, eventTs }: ZoomWebhookEvent) {
  const accountId = idOf(payload['account_id']);
  const { object } = payload;
  if (accountId === null || !isMembers(object)) return null;
  return { accountId, object, at: plausible(eventTs) ?? plausible(readTime(payload['time_stamp'])) };
}

/** Within what a database holds and a clock can mean. */
function plausible(at: Date | null): Date | null {
  return at !== null && at.getUTCFullYear() >= 2000 && at.getUTCFullYear() < 2100 ? at : null;
}

function idOf(value: unknown): string | null {
  return typeof value === 'string' && /^[\x21-\x7e]{1,128}$/.test(value) ? value : null;
}

/** Meeting numbers come as numbers or as digits, at times in groups. */
function digitsOf(value: unknown): string | null {
  if (typeof value === 'number') return Number.isSafeInteger(value) && value > 0 ? String(value) : null;
  if (typeof value !== 'string') return null;
  const digits = value.replaceAll(/[ -]/g, '');
  return /^\d{1,20}$/.test(digits) ? digits : null;
}

/** A text for people: up to 320 characters, the longest e-mail address; none that a database refuses. */
function textOf(value: unknown): string | null {
  if (typeof value !== 'string' || value.includes('\0')) return null;
  const text = value.trim();
  return text === '' || text.length > 320 ? null : text;
}

/** Only where both names are told: half a name put in place of a whole one would be wrong. */
function fullName(object: Members): string | null {
  const [first, last] = [textOf(object['first_name']), textOf(object['last_name'])];
  return first === null || last === null ? null : `${first} ${last}`;
}
