import type { Sql } from '../database/database.js';
import type { ProviderAppKind } from '../generated/prisma/enums.js';
import type { ZoomEvent } from '../zoom/webhook-event.js';
import { applyDeauthorization } from './deauthorization.js';
import { applyMeetingEvent } from './meeting-directory.js';
import type { Transition } from './health-event.js';
import { removeProviderUser, updateProviderUser } from './provider-user.js';

/** The app that an event was delivered to. */
export interface EventReceiver {
  id: string;
  clientId: string;
  kind: ProviderAppKind;
}

/** What an event did. */
export interface Effect {
  /** How many grants it changed. */
  changed: number;
  transitions: Transition[];
}

const NONE: Effect = { changed: 0, transitions: [] };

/**
 * Applies an event in the transaction that stores it, so that neither is kept without the other.
 *
 * Whatever the order in which events arrive, the same state comes of them: each is judged by the provider's times, and
 * one that is older than what is stored changes nothing. Repeating one changes nothing either.
 *
 * @returns the transitions to record, last in the transaction.
 */
export async function applyEvent(tx: Sql, app: EventReceiver, event: ZoomEvent): Promise<Effect> {
  switch (event.name) {
    case 'app_deauthorized':
      return event.clientId === app.clientId ? applyDeauthorization(tx, app, event) : NONE;
    case 'user.updated':
      await applyMeetingEvent(tx, app, event);
      return updateProviderUser(tx, app, event);
    case 'user.deleted':
      await applyMeetingEvent(tx, app, event);
      return removeProviderUser(tx, app, event);
    case 'user.deactivated':
      return removeProviderUser(tx, app, event);
    case 'meeting.created':
    case 'meeting.updated':
    case 'meeting.deleted':
      await applyMeetingEvent(tx, app, event);
      return NONE;
  }
}
