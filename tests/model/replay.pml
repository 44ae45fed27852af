// SPDX-License-Identifier: MIT OR Apache-2.0
// The replay marks of one client, src/state and src/knock/replay.rs, for Spin: no packet opens a port twice, or after
// a quarantine refused it, and no client is kept out longer than a quarantine. `run` also builds it with faults, each of
// which Spin has to find.
//
// Time is a number, and a packet is its counter. The attacker has every packet and sends any of them at any time; the
// client's clock is wrong by as much as it likes. Kill, power loss, stop and start come between any two steps. Files are
// replaced whole, as rename(2) does it; that damage is seen is for the tests. The reboot of a machine takes no time.

#define AGE   1
#define AHEAD 1
#ifndef QUARANTINE
#define QUARANTINE (AGE + AHEAD + 1)   // both limits are inclusive
#endif
#define END   (AGE + 1 + QUARANTINE + 2)   // the last moment that is looked at
#define KNOCKS 3                       // how many the client makes, and how many ends the process comes to
#ifndef ENDS
#define ENDS   3
#endif
#define PACKETS (END + AHEAD + 2)      // counters are 1 to this less one; 0 is no mark

bit made[PACKETS];
bit heard[PACKETS];
bit used[PACKETS];
byte last_made, knocks, ends, now = AGE + 1;

// The process: what a kill takes.
mtype = { down, loading, making, idle, taken, noted, written };
mtype at = down;
byte mark, sequence, until, packet;

// /run: what a power loss takes.
bit has_journal, foreign;
byte j_mark, j_sequence, j_until;

// What the kernel had written of it to a disk, where /run is none that is forgotten.
byte d_mark, d_sequence, d_until;

// /var/lib: as `initialise` makes it.
bit clean = 1;
byte s_mark, s_sequence;

#ifdef RESTORED
byte b_mark, b_sequence;               // a backup of /var/lib that was made after a clean stop
#endif

inline forget() { mark = 0; sequence = 0; until = 0; packet = 0; }

inline kill() { at = down; forget() }

inline lose_power() {
	at = down; forget();
#ifdef DISK
	// What was not written yet is lost, the rest is there, and of another boot.
	j_mark = d_mark; j_sequence = d_sequence; j_until = 0;
#ifdef BOOT
	foreign = 1;
#endif
#else
	has_journal = 0; j_mark = 0; j_sequence = 0; j_until = 0;
#endif
}

// The table in knockd-rs-protocol(7), "Replay state".
inline recover() {
	if
	:: has_journal && !foreign && j_sequence >= s_sequence -> until = j_until
	:: (!has_journal || foreign) && clean -> until = 0
	:: else -> until = now + QUARANTINE
	fi;
	if
	:: until > now + QUARANTINE -> until = now + QUARANTINE
	:: else
	fi;
	mark = s_mark; sequence = s_sequence;
	if
	:: has_journal && !foreign && j_mark > mark -> mark = j_mark
	:: else
	fi;
	if
	:: has_journal && !foreign && j_sequence > sequence -> sequence = j_sequence
	:: else
	fi
}

inline write_journal() {
	has_journal = 1; foreign = 0;
	j_mark = mark; j_sequence = sequence; j_until = until
}

// A port opens. What did that before, or was refused in a quarantine, is used up.
inline open_port() {
	assert(!used[packet]);
	used[packet] = 1
}

active proctype world() {
	byte c;
	do
	// The client knocks, by a clock of its own that never goes back.
	:: knocks < KNOCKS ->
		atomic {
			select(c : 1 .. (PACKETS - 1));
			if
			:: c > last_made && c + AGE >= now && c <= now + AHEAD + 1 -> made[c] = 1; last_made = c; knocks++
			:: else
			fi;
			c = 0
		}

	:: now < END -> now++

	// Start: the journal is made anew, then an unclean snapshot, then the capture is listened to.
	:: atomic { at == down -> recover(); at = loading }
	:: atomic { at == loading -> write_journal(); at = making }
	:: atomic { at == making -> s_mark = mark; s_sequence = sequence; clean = 0; at = idle }

	// Somebody sends a packet.
	:: at == idle ->
		atomic {
			select(c : 1 .. (PACKETS - 1));
			if
			:: made[c] && at == idle ->
				// Whoever has the newest knock and is in time gets in, but for a quarantine.
				assert(c != last_made || heard[c] || c > mark);
				assert(until <= now + QUARANTINE);
				if
				:: c <= mark
#ifndef DOUBT
				:: c > mark && (c + AGE < now || c > now + AHEAD)
#endif
#ifdef DOUBT
				:: c > mark && now >= until
#else
				:: c > mark && c + AGE >= now && c <= now + AHEAD && now >= until
#endif
					-> packet = c; heard[c] = 1; at = taken
#ifdef DOUBT
				:: c > mark && now < until
#else
				:: c > mark && c + AGE >= now && c <= now + AHEAD && now < until
#endif
					-> mark = c; heard[c] = 1; sequence++; write_journal(); used[c] = 1
				fi
			:: else
			fi;
			c = 0
		}
	:: atomic { at == taken -> mark = packet; at = noted }
#ifdef LATE
	:: atomic { at == noted -> open_port(); at = written }
	:: atomic { at == written -> sequence++; write_journal(); packet = 0; at = idle }
#else
	:: atomic { at == noted -> sequence++; write_journal(); at = written }
	:: atomic { at == written -> open_port(); packet = 0; at = idle }
#endif

	// The thread that writes snapshots has what the journal has.
	:: atomic { (at == idle || at == written) && sequence > s_sequence -> s_mark = mark; s_sequence = sequence }
#ifdef DISK
	:: atomic { has_journal -> d_mark = j_mark; d_sequence = j_sequence; d_until = j_until }
#endif

	// What ends it.
	:: atomic { at != down && ends < ENDS -> ends++; kill() }
	:: atomic { ends < ENDS -> ends++; lose_power() }
	:: atomic { at == idle && ends < ENDS ->
			ends++; s_mark = mark; s_sequence = sequence;
#ifdef HASTY
			clean = 1;
#else
			clean = (now >= until);
#endif
			kill() }
#ifdef RESTORED
	:: atomic { at == down && clean -> b_mark = s_mark; b_sequence = s_sequence }
	:: atomic { at == down -> s_mark = b_mark; s_sequence = b_sequence; clean = 1 }
#endif
	:: now == END -> break
	od
}
