import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { ControlError } from './control-error.js';
import {
  tellMeetingCreated,
  tellMeetingDeleted,
  tellMeetingUpdated,
  tellPmiChanged,
  tellUserRenamed,
} from './meeting-events.js';
import type { Meeting, User } from './model.js';
import { pmiOf } from './rest-users.js';
import { nowMs, type World } from './world.js';

/** Whether apps are told of a change; not, as if their webhooks were lost. */
const told = { webhooks: z.boolean().default(true) };

const meetingInput = z.strictObject({
  hostId: z.string(),
  topic: z.string().min(1).max(200).default('Weekly'),
  type: z.union([z.literal(1), z.literal(2), z.literal(3), z.literal(8)]).default(2),
  ...told,
});

const meetingPatch = z.strictObject({ topic: z.string().min(1).max(200), ...told });

const meetingDeletion = z.strictObject({ operation: z.enum(['all', 'single']).default('all'), ...told });

const userPatch = z.strictObject({
  pmi: z.int().min(1_000_000_000).max(9_999_999_999).optional(),
  localRecordingOff: z.boolean().optional(),
  email: z.email().toLowerCase().optional(),
  displayName: z.string().min(1).max(200).optional(),
  ...told,
});

/** What people do with meetings at Zoom. Each change is told to the apps that Zoom would tell. */
export interface MeetingControl {
  meetings(): Meeting[];
  createMeeting(input: z.input<typeof meetingInput>): Meeting;
  updateMeeting(meetingId: number, patch: z.input<typeof meetingPatch>): Meeting;
  /** `single`: one occurrence of a series; the meeting stays. */
  deleteMeeting(meetingId: number, input?: z.input<typeof meetingDeletion>): Meeting;
  updateUser(userId: string, patch: z.input<typeof userPatch>): User;
}

export function createMeetingControl(world: World): MeetingControl {
  const { state } = world;

  const userOf = (userId: string): User => {
    const user = state.users.get(userId);
    if (user === undefined || user.removed) throw new ControlError(404, 'There is no such user.');
    return user;
  };
  const meetingOf = (meetingId: number): Meeting => {
    const meeting = state.meetings.get(meetingId);
    if (meeting === undefined) throw new ControlError(404, 'There is no such meeting.');
    return meeting;
  };
  const saved = <T>(value: T): T => {
    world.changed();
    return structuredClone(value);
  };

  return {
    meetings: () => structuredClone([...state.meetings.values()]),
    createMeeting: (input) => {
      const { hostId, webhooks, ...rest } = meetingInput.parse(input);
      const host = userOf(hostId);
      const now = nowMs(world);
      const id = world.mint.meetingNumber();
      const uuid = randomBytes(16).toString('base64');
      const meeting: Meeting = { id, uuid, hostId, ...rest, createdAt: now, startAt: now, durationMinutes: 60 };
      state.meetings.set(id, meeting);
      if (webhooks) tellMeetingCreated(world, host, meeting);
      return saved(meeting);
    },
    updateMeeting: (meetingId, patch) => {
      const { topic, webhooks } = meetingPatch.parse(patch);
      const meeting = meetingOf(meetingId);
      const former = meeting.topic;
      meeting.topic = topic;
      if (webhooks) tellMeetingUpdated(world, userOf(meeting.hostId), meeting, former);
      return saved(meeting);
    },
    deleteMeeting: (meetingId, input = {}) => {
      const { operation, webhooks } = meetingDeletion.parse(input);
      const meeting = meetingOf(meetingId);
      if (operation === 'all') state.meetings.delete(meetingId);
      if (webhooks) tellMeetingDeleted(world, userOf(meeting.hostId), meeting, operation);
      return saved(meeting);
    },
    updateUser: (userId, patch) => {
      const { pmi, localRecordingOff, email, displayName, webhooks } = userPatch.parse(patch);
      const user = userOf(userId);
      const former = pmiOf(user);
      if (localRecordingOff !== undefined) user.localRecordingOff = localRecordingOff;
      if (pmi !== undefined) user.pmi = pmi;
      if (webhooks && pmiOf(user) !== former) tellPmiChanged(world, user, former);
      const names = { ...(email && { email }), ...(displayName && { displayName }) };
      if (webhooks && Object.keys(names).length > 0) tellUserRenamed(world, { ...user, ...names }, user);
      Object.assign(user, names);
      return saved(user);
    },
  };
}
