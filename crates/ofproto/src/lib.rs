//! OpenFlow tables, translation, upcalls, controllers.
