//! The connections of an engine, by id.

use super::ConnId;
use super::conn::Conn;

/// Slots with generations.
#[derive(Debug, Default)]
pub(super) struct ConnTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    conn: Option<Box<Conn>>,
}

impl ConnTable {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The id that the next [`insert`](Self::insert) takes.
    pub(super) fn next_id(&self) -> ConnId {
        match self.free.last() {
            Some(&index) => ConnId {
                index,
                generation: self.slots[index as usize].generation,
            },
            None => ConnId {
                index: self.slots.len() as u32,
                generation: 1,
            },
        }
    }

    pub(super) fn insert(&mut self, conn: Conn) {
        let conn = Some(Box::new(conn));
        match self.free.pop() {
            Some(index) => self.slots[index as usize].conn = conn,
            None => self.slots.push(Slot {
                generation: 1,
                conn,
            }),
        }
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Conn> {
        let slot = self.slots.get(id.index as usize)?;
        slot.conn
            .as_deref()
            .filter(|_| slot.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.conn
            .as_deref_mut()
            .filter(|_| slot.generation == id.generation)
    }

    /// The id of the connection at `index`.
    pub(super) fn id_at(&self, index: u32) -> Option<ConnId> {
        self.slots
            .get(index as usize)?
            .conn
            .as_deref()
            .map(|conn| conn.id)
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Conn> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let conn = slot.conn.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(*conn)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Conn> {
        self.slots.iter().filter_map(|slot| slot.conn.as_deref())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Conn> {
        self.slots
            .iter_mut()
            .filter_map(|slot| slot.conn.as_deref_mut())
    }
}
