import type { WebhookEvent } from './events.js';
import { type App, grantKeyOf, type Meeting, type User } from './model.js';
import { pmiOf } from './rest-users.js';
import type { World } from './world.js';

/** Apps that are told what a user does: those the user authorized, and those installed in the user's account. */
function appsToldAbout({ state }: World, user: User): App[] {
  return [...state.apps.values()].filter((app) => {
    if (app.disabled || app.webhookUrl === null) return false;
    if (app.usage === 'SERVER_TO_SERVER') return app.accountId === user.accountId;
    if (app.usage === 'USER_OPERATION') return state.grants.has(grantKeyOf(app.clientId, user.id));
    return [...state.grants.values()].some((g) => g.clientId === app.clientId && g.accountId === user.accountId);
  });
}

function tell(world: World, user: User, event: string, payload: Record<string, unknown>): string[] {
  const operator = { operator: user.email, operator_id: user.id };
  const body: WebhookEvent = {
    event,
    event_ts: world.clock.now().getTime(),
    payload: { account_id: user.accountId, ...operator, ...payload },
  };
  return appsToldAbout(world, user).flatMap((app) => world.webhooks.deliver(app, body) ?? []);
}

const meetingObject = (meeting: Meeting): Record<string, unknown> => ({
  uuid: meeting.uuid,
  id: meeting.id,
  host_id: meeting.hostId,
  topic: meeting.topic,
  type: meeting.type,
  start_time: new Date(meeting.startAt).toISOString(),
  duration: meeting.durationMinutes,
  timezone: 'UTC',
});

/** @returns ids of the deliveries, as all of these. */
export const tellMeetingCreated = (world: World, host: User, meeting: Meeting): string[] =>
  tell(world, host, 'meeting.created', {
    operation: 'all',
    object: { ...meetingObject(meeting), join_url: `https://zoom.us/j/${meeting.id}`, settings: { use_pmi: false } },
  });

/** Only what changed, and what it was before; without the host. */
export const tellMeetingUpdated = (world: World, host: User, meeting: Meeting, formerTopic: string): string[] =>
  tell(world, host, 'meeting.updated', {
    scope: 'all',
    time_stamp: world.clock.now().getTime(),
    object: { id: meeting.id, topic: meeting.topic },
    old_object: { id: meeting.id, topic: formerTopic },
  });

export const tellMeetingDeleted = (world: World, host: User, meeting: Meeting, operation: 'all' | 'single'): string[] =>
  tell(world, host, 'meeting.deleted', { operation, object: meetingObject(meeting) });

export const tellPmiChanged = (world: World, user: User, formerPmi: number): string[] =>
  tell(world, user, 'user.updated', {
    time_stamp: world.clock.now().getTime(),
    object: { id: user.id, pmi: pmiOf(user) },
    old_object: { id: user.id, pmi: formerPmi },
  });

/** Only what changed, and what it was before. */
export const tellUserRenamed = (world: World, user: User, former: User): string[] =>
  tell(world, user, 'user.updated', {
    time_stamp: world.clock.now().getTime(),
    object: { id: user.id, email: user.email, display_name: user.displayName },
    old_object: { id: user.id, email: former.email, display_name: former.displayName },
  });

/** Tell it before the user's grants end: they say which apps are told. */
export const tellUserRemoved = (world: World, user: User, how: 'deleted' | 'deactivated'): string[] =>
  tell(world, user, `user.${how}`, { object: { id: user.id, email: user.email, type: 2 } });
